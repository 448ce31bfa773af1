"""Exported files for batches: any number of images of one size, the detections of PyTorch."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.prediction import Predictor, export_onnx, export_torchscript
from brloss_d2.prediction.export import detections
from tests.helpers.golden_models import load
from tests.prediction.test_export_formats import MEAN, STD, predictor_of, sample
from tests.projects.co_detr import golden_dino
from tests.projects.co_detr.golden_detector import detector

NAMES = ["boxes", "labels", "scores"]


@pytest.fixture(scope="module", params=["brs_detr", "brs_co_dino"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    build = golden_dino.detector if request.param == "brs_co_dino" else detector
    model = build(load(request.param)).eval()
    for buffer, values in ((model.pixel_mean, MEAN), (model.pixel_std, STD)):
        buffer.copy_(torch.tensor(values).view(3, 1, 1))
    return predictor_of(model)


def batch(size: tuple[int, int], images: int) -> Tensor:
    """The two images of the golden file, stretched to the size, and turned copies of them."""
    raw = [load("brs_detr").tensor(f"input/image{i}_uint8")[None] for i in (0, 1)]
    both = torch.cat([nn.functional.interpolate(x.float(), size).byte() for x in raw])
    return torch.cat([both, both.flip(3), both.flip(2)])[:images]


@torch.no_grad()
def compare(model: nn.Module, images: Tensor, found: dict[str, Tensor]) -> None:
    for i, image in enumerate(images):
        expected = detections(model, image)
        # Suppression may leave fewer detections than a file has rows.
        kept = found["scores"][i] > 0 if model.suppression else slice(None)
        own = {name: tensor[i][kept] for name, tensor in found.items()}
        torch.testing.assert_close(own["scores"], expected["scores"], rtol=0, atol=1e-5)
        assert torch.equal(own["labels"], expected["labels"])
        torch.testing.assert_close(own["boxes"], expected["boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("predictor", ["brs_detr"], indirect=True)
def test_torchscript(predictor: Predictor, tmp_path: Path) -> None:
    path = str(tmp_path / "a.ts")
    assert export_torchscript(predictor, sample(), path) == NAMES
    extra = {"detector.json": ""}
    exported = torch.jit.load(path, _extra_files=extra)
    about = json.loads(extra["detector.json"])
    for count in (1, 4):
        images = batch((about["height"], about["width"]), count)
        compare(predictor.model, images, dict(zip(NAMES, exported(images), strict=True)))


def test_onnx(predictor: Predictor, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = str(tmp_path / "a.onnx")
    assert export_onnx(predictor, sample(), path) == NAMES
    session = onnxruntime.InferenceSession(path)
    about = json.loads(session.get_modelmeta().custom_metadata_map["detector.json"])
    assert session.get_inputs()[0].shape == ["batch", 3, about["height"], about["width"]]
    for count in (1, 5):
        images = batch((about["height"], about["width"]), count)
        arrays = session.run(NAMES, {"image": images.numpy()})
        found = {name: torch.as_tensor(a) for name, a in zip(NAMES, arrays, strict=True)}
        compare(predictor.model, images, found)


@pytest.mark.parametrize("predictor", ["brs_detr"], indirect=True)
def test_a_graph_that_differs_is_refused(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type(predictor.model).detect_batch

    def moved(self: nn.Module, images: Tensor) -> dict[str, Tensor]:
        found = original(self, images)
        return {**found, "boxes": found["boxes"] + 0.1}

    monkeypatch.setattr(type(predictor.model), "detect_batch", moved)
    with pytest.raises(InputError, match=r"image 0 of a batch: boxes by up to 0\.1"):
        export_torchscript(predictor, sample(), str(tmp_path / "a.ts"))
    assert not list(tmp_path.iterdir())
