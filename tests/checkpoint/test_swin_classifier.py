"""A detector starts from the published Swin transformers, which are classifiers."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling.backbone.swin import SwinTransformer
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer, is_backbone_only, local_file
from brloss_d2.errors import InputError

NAME = "swin_tiny_patch4_window7_224"


class Detector(nn.Module):
    """A Swin transformer and something else."""

    def __init__(self, window_size: int = 2):
        super().__init__()
        self.backbone = SwinTransformer(
            embed_dim=4,
            depths=(1, 2),
            num_heads=(1, 2),
            window_size=window_size,
            out_indices=(1,),
            drop_path_rate=0.0,
        )
        self.neck = nn.Sequential(nn.Conv2d(8, 8, 1), nn.LayerNorm(8))


@pytest.fixture
def classifier() -> dict[str, Tensor]:
    """Names and shapes of a published file, with what no backbone has."""
    backbone = Detector().backbone
    for parameter in backbone.parameters():
        nn.init.normal_(parameter)
    state = {k: v.clone() for k, v in backbone.state_dict().items() if not k.startswith("norm1.")}
    state["layers.0.blocks.0.attn_mask"] = torch.zeros(4, 4, 4)
    for name, size in (("norm.weight", (8,)), ("norm.bias", (8,)), ("head.weight", (10, 8))):
        state[name] = torch.full(size, 7.0)
    return state


@pytest.fixture
def hub(tmp_path: Path, classifier: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has the file, so that nothing is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"model": classifier}, folder / f"{NAME}.pth")
    return folder


def test_the_backbone_and_nothing_else_is_loaded(
    hub: Path, classifier: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    detector = Detector()
    before = {name: weight.clone() for name, weight in detector.state_dict().items()}
    with caplog.at_level("INFO"):
        Checkpointer(detector).load(f"swin://{NAME}")
    for name, weight in detector.state_dict().items():
        expected = classifier.get(name.removeprefix("backbone."), before[name])
        assert torch.equal(weight, expected), name
    assert "49 of 49 tensors of backbone" in caplog.text
    assert "neck" not in caplog.text, "the rest of the detector is not missing"
    assert "not used by the model" not in caplog.text, "the classifier is left out"


def test_a_plain_file_is_recognized(hub: Path, classifier: dict[str, Tensor]) -> None:
    detector = Detector()
    Checkpointer(detector).load(str(hub / f"{NAME}.pth"))
    found = detector.backbone.layers[1].blocks[1].attn.qkv.weight
    assert torch.equal(found, classifier["layers.1.blocks.1.attn.qkv.weight"])


def test_another_swin_is_refused(hub: Path) -> None:
    with pytest.raises(InputError, match=r"than backbone: 6 of 49 tensors differ, .*\(9, "):
        Checkpointer(Detector(window_size=3)).load(f"swin://{NAME}")


def test_a_model_without_swin_is_refused(hub: Path) -> None:
    with pytest.raises(InputError, match="this one has none"):
        Checkpointer(nn.Linear(2, 2)).load(f"swin://{NAME}")


def test_names() -> None:
    assert is_backbone_only(f"swin://{NAME}")
    with pytest.raises(InputError, match=f"no swin://vgg; known names: {NAME}, "):
        local_file("swin://vgg")
