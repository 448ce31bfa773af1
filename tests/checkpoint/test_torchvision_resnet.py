import logging
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import FPN
from detectron2.modeling.backbone import BasicStem, ResNet
from torch import nn

from brloss_d2.checkpoint import (
    Checkpointer,
    is_backbone_only,
    local_file,
    register_classifiers,
)
from brloss_d2.checkpoint.classifiers import RESNET, preprocessing_mistakes
from brloss_d2.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
RESNET18_FILE = "resnet18-f37072fd.pth"


class Detector(nn.Module):
    """A feature pyramid on a ResNet, as far as weights are concerned."""

    def __init__(
        self,
        depth: int = 18,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        mean: float = 123.675,
        std: float = 57.0,
    ):
        super().__init__()
        stride = {"stride_in_1x1": stride_in_1x1} if depth >= 50 else {}
        bottom_up = ResNet(
            BasicStem(norm=norm),
            ResNet.make_default_stages(depth, norm=norm, **stride),
            out_features=["res2", "res3", "res4", "res5"],
        )
        self.backbone = FPN(bottom_up, ["res2", "res3"], 8)
        self.register_buffer("pixel_mean", torch.tensor([mean, 116.28, 103.53]).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), std))


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model.eval()


@pytest.fixture
def hub(tmp_path: Path, resnet18: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has ResNet-18, so that nothing is downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(resnet18.state_dict(), folder / RESNET18_FILE)
    return folder


def features(resnet: nn.Module, images: torch.Tensor) -> torch.Tensor:
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
    return resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))


def test_the_checkpointer_of_detectron2_reads_names_of_torchvision(
    hub: Path, resnet18: nn.Module
) -> None:
    register_classifiers()
    register_classifiers()  # idempotent
    detector = Detector(norm="FrozenBN").eval()
    DetectionCheckpointer(detector).load("torchvision://resnet18")
    assert torch.equal(detector.backbone.bottom_up.stem.conv1.weight, resnet18.conv1.weight)
    last = detector.backbone.bottom_up.res5[1].conv2.norm.running_var
    assert torch.equal(last, resnet18.layer4[1].bn2.running_var)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_the_backbone_computes_what_torchvision_computes(
    hub: Path, resnet18: nn.Module, norm: str
) -> None:
    detector = Detector(norm=norm).eval()
    Checkpointer(detector).load("torchvision://resnet18")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours = detector.backbone.bottom_up(images)["res5"]
        assert torch.allclose(ours, features(resnet18, images), rtol=1e-3, atol=1e-4)


def test_a_plain_file_is_recognized(hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector()
    head = detector.backbone.fpn_lateral2.weight.clone()
    with caplog.at_level(logging.INFO):
        Checkpointer(detector).load(str(hub / RESNET18_FILE))
    assert "20 of 20 convolutions of backbone.bottom_up" in caplog.text
    assert "fpn_lateral2" not in caplog.text, "the rest of the detector is not missing"
    assert "trained differently" not in caplog.text
    assert torch.equal(detector.backbone.fpn_lateral2.weight, head)


def test_bottlenecks_and_stride() -> None:
    weights = RESNET.backbone_weights(torchvision.models.resnet50(weights=None).state_dict())
    detector = Detector(depth=50, stride_in_1x1=True)
    prefix, found = RESNET.fit(weights, detector.state_dict())
    assert (prefix, found) == ("backbone.bottom_up.", "53 of 53 convolutions of backbone.bottom_up")
    unloaded = {
        name[len(prefix) :] for name in detector.state_dict() if name.startswith(prefix)
    } - weights.keys()
    assert all(name.endswith("num_batches_tracked") for name in unloaded)
    assert len(list(preprocessing_mistakes(detector))) == 1


def test_a_deformable_resnet_starts_from_a_plain_one() -> None:
    weights = RESNET.backbone_weights(torchvision.models.resnet101(weights=None).state_dict())
    node = LazyConfig.load(str(CONFIGS / "common/models/resnet_101_dcn.py")).bottom_up
    network = instantiate(node)
    _, found = RESNET.fit(weights, {f"backbone.{n}": w for n, w in network.state_dict().items()})
    assert found == "104 of 104 convolutions of backbone"
    missing = network.load_state_dict(weights, strict=False).missing_keys
    new = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert len(new) == 60 and all(".conv2_offset." in name for name in new)


@pytest.mark.parametrize(("option", "word"), [({"std": 1.0}, "pixel_std"), ({"mean": 1.0}, "RGB")])
def test_other_preprocessing_is_told(
    hub: Path, caplog: pytest.LogCaptureFixture, option: dict, word: str
) -> None:
    Checkpointer(Detector(**option)).load("torchvision://resnet18")
    assert word in caplog.text


@pytest.mark.parametrize("depth", [34, 50])
def test_another_depth_is_refused(hub: Path, depth: int) -> None:
    with pytest.raises(InputError, match=r"another ResNet than backbone\.bottom_up: .*first res"):
        Checkpointer(Detector(depth=depth)).load("torchvision://resnet18")


def test_a_model_without_resnet_is_refused(hub: Path) -> None:
    with pytest.raises(InputError, match="none"):
        Checkpointer(nn.Linear(2, 2)).load("torchvision://resnet18")


@pytest.mark.parametrize("name", ["resnet101", "resnext101_64x4d", "wide_resnet50_2"])
def test_names_of_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fake(url: str, file: str, checksum: str) -> None:
        assert checksum in url
        Path(file).touch()

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fake)
    assert Path(local_file(f"torchvision://{name}")).name.startswith(f"{name}-")
    assert is_backbone_only(f"torchvision://{name}")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(
        InputError, match=r"(?s)not known.*init_checkpoint=FILE.*init_checkpoint=\"\""
    ):
        local_file("torchvision://resnet50")


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="resnext50_32x4d"):
        local_file("torchvision://vgg16")
    with pytest.raises(InputError, match=r"no_such\.pth"):
        local_file("no_such.pth?matching_heuristics=True")
