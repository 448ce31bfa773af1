"""Exported detectors on images of other sizes than the sample."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.modeling import DetectorWithTTA
from brloss_d2.prediction import Categories, Predictor, export_onnx, export_torchscript
from brloss_d2.prediction.batches import _EachImage
from brloss_d2.prediction.export import detections
from tests.helpers.bright_squares import BrightSquares, square_image
from tests.helpers.golden_models import load
from tests.helpers.golden_rcnn import detector, small_faster_rcnn
from tests.helpers.small_one_stage import build, difference_of_detections, small_config
from tests.helpers.small_solov2 import build_solov2
from tests.helpers.small_yolact import build as build_yolact

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OCTAVE = [[x, x * 2**0.5] for x in (32, 64, 128, 256, 512)]
TWO_SCALES = {"anchor_generator": {"sizes": OCTAVE}, "head": {"num_anchors": 6}}
ONE_STAGE = {  # leaf, channels of the towers, architecture, changes
    "atss_brs": ("atss_R_50_FPN_brs_1x", 64, "atss", {}),
    "paa_brs": ("paa_R_50_FPN_brs_1x", 64, "paa", {}),
    "retinanet_alrp": ("retinanet_R_50_FPN_alrp_1x", 32, "retinanet", TWO_SCALES),
    "foveabox_alrp": ("fovea_R_50_FPN_alrp_500s_100e", 32, "fovea", {}),
}
NAMES = ["boxes", "labels", "scores"]
R_CNN = ("faster_brs", "cascade_brs", "mask_brs")


def trained(name: str) -> nn.Module:
    golden = load(name)
    if name in R_CNN:
        model = detector(golden)
    else:
        leaf, tower, architecture, changes = ONE_STAGE[name]
        cfg = small_config(leaf, tower=tower)
        cfg.merge_with(changes)
        # Some levels of some images have more anchors, others fewer.
        cfg.postprocessor.select.update(topk=20, score_thresh=0.01)
        model = build(cfg, golden, architecture)
    for buffer, values in ((model.pixel_mean, MEAN), (model.pixel_std, STD)):
        buffer.copy_(torch.tensor(values).view(3, 1, 1))
    return model.eval()


def predictor_of(model: nn.Module) -> Predictor:
    mapper = small_faster_rcnn("brs").dataloader.test.mapper
    mapper.augmentations[0].short_edge_length = 187
    return Predictor(model, instantiate(mapper), Categories.unnamed(5))


def sample() -> np.ndarray:
    return load("faster_brs").tensor("in/raw0").numpy()


def other_images() -> list[Tensor]:
    """Images that the trace has not seen: another one, cut, enlarged, and one without objects."""
    second = load("faster_brs").tensor("in/raw1").permute(2, 0, 1)
    large = nn.functional.interpolate(second[None].float(), scale_factor=1.6)[0].byte()
    return [second, second[:, :128, :100].contiguous(), large, torch.zeros_like(second)]


@pytest.mark.parametrize("name", [*R_CNN, *ONE_STAGE])
def test_torchscript(name: str, tmp_path: Path) -> None:
    predictor = predictor_of(trained(name))
    names = export_torchscript(predictor, sample(), str(tmp_path / "a.ts"))
    assert names == ["boxes", "labels", *(["masks"] if name == "mask_brs" else []), "scores"]
    exported = torch.jit.load(str(tmp_path / "a.ts"))
    compare(predictor.model, lambda x: dict(zip(names, exported(x), strict=True)))


@pytest.mark.skipif(
    not importlib.util.find_spec("onnxruntime"), reason="needs the packages onnx and onnxruntime"
)
@pytest.mark.parametrize("name", [*R_CNN, *ONE_STAGE])
def test_onnx(name: str, tmp_path: Path) -> None:
    import onnxruntime

    predictor = predictor_of(trained(name))
    names = export_onnx(predictor, sample(), str(tmp_path / "a.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["detector.json"])
    assert about["outputs"] == names and len(about["class_names"]) == 5

    def exported(image: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {"image": image.numpy()})
        return {key: torch.as_tensor(a) for key, a in zip(names, arrays, strict=True)}

    compare(predictor.model, exported)


def images_of_one_size(predictor: Predictor) -> Tensor:
    """Images that the trace has not seen, of the size of the sample."""
    first = predictor.resized(sample())
    second = nn.functional.interpolate(other_images()[0][None].float(), size=first.shape[1:])[0]
    return torch.stack([second.byte(), first.flip(2), second.byte().flip(1)])


@pytest.mark.parametrize("name", [name for name in (*R_CNN, *ONE_STAGE) if name != "mask_brs"])
def test_batches_of_any_size(name: str, tmp_path: Path) -> None:
    predictor, formats = predictor_of(trained(name)), [export_torchscript]
    if importlib.util.find_spec("onnxruntime") and name != "cascade_brs":  # takes long
        formats.append(export_onnx)
    images = images_of_one_size(predictor)
    for export in formats:
        file = str(tmp_path / export.__name__)
        names = export(predictor, sample(), file, dynamic_batch=True)
        assert names == NAMES
        run = runner(file, is_onnx=export is export_onnx)
        for others in (images[:0], images[:2]):
            compare(predictor.model, partial(last_of_batch, run, others), images)


def last_of_batch(
    run: Callable[[Tensor], Sequence[Tensor]], others: Tensor, image: Tensor
) -> dict[str, Tensor]:
    """Detections in an image that comes after others in a batch."""
    boxes, labels, scores = (x[-1] for x in run(torch.cat([others, image[None]])))
    return {name: x[scores > 0] for name, x in zip(NAMES, (boxes, labels, scores), strict=True)}


def runner(file: str, *, is_onnx: bool) -> Callable[[Tensor], list[Tensor]]:
    if not is_onnx:
        return torch.jit.load(file)
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    return lambda x: [torch.as_tensor(a) for a in session.run(None, {"image": x.numpy()})]


def test_images_with_fewer_detections_are_filled_up() -> None:
    class Counting(nn.Module):
        """As many detections as the first number of an image says."""

        def forward(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows = packed[1:][: int(packed[0])]
            return rows[:, None].expand(-1, 4), rows.to(torch.int64), rows

    each = torch.jit.script(_EachImage(torch.jit.script(Counting()), 2))
    packed = torch.tensor([[0.0, 7, 8, 9], [1, 7, 8, 9], [3, 7, 8, 9]])
    boxes, labels, scores = each(packed)
    assert scores.tolist() == [[0, 0], [7, 0], [7, 8]] == labels.tolist()
    assert boxes[1].tolist() == [[7] * 4, [0] * 4]
    assert [x.shape[0] for x in each(packed[:1])] == [1, 1, 1]


def test_detectors_without_batches_say_so(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "a.ts"
    with pytest.raises(InputError, match="A detector of masks cannot be exported for batches"):
        masks = predictor_of(trained("mask_brs"))
        export_torchscript(masks, sample(), str(file), dynamic_batch=True)
    monkeypatch.setattr("brloss_d2.prediction.export.detections", _detections)
    with pytest.raises(InputError, match=r"Only one-stage detectors.* not a BrightSquares"):
        export_torchscript(squares(), square_image(), str(file), dynamic_batch=True)
    assert not file.exists()


@torch.no_grad()
def compare(
    model: nn.Module,
    exported: Callable[[Tensor], dict[str, Tensor]],
    images: Iterable[Tensor] | None = None,
) -> None:
    counts = []
    for image in other_images() if images is None else images:
        expected, found = detections(model, image), exported(image)
        assert expected.keys() == found.keys()
        assert all(len(found[key]) == len(tensor) for key, tensor in expected.items()), image.shape
        counts.append(len(expected["boxes"]))
        if not counts[-1]:
            continue
        instances = Instances((1, 1), pred_boxes=Boxes(found["boxes"]), scores=found["scores"])
        instances.pred_classes = found["labels"]
        others = (expected[key] for key in ("boxes", "scores", "labels"))
        box, score = difference_of_detections(instances, *others)
        assert box < 1e-3 and score < 1e-5
        if "masks" in expected:
            torch.testing.assert_close(found["masks"], expected["masks"], rtol=0, atol=1e-4)
    assert counts[0] > 0


@pytest.mark.parametrize("name", ["yolact", "solov2"])
def test_masks_of_the_whole_image(name: str, tmp_path: Path) -> None:
    """They follow the size of the image; test-time augmentation does not know them."""
    model = build_yolact("rs") if name == "yolact" else build_solov2("rs", load("solov2_rs"))
    if name == "solov2":
        model.postprocessor.final_thresh = 0.4  # so that the number of masks varies
    predictor = predictor_of(model.eval())
    names = export_torchscript(predictor, sample(), str(tmp_path / "a.ts"))
    exported = torch.jit.load(str(tmp_path / "a.ts"))
    counts = set()
    for height, width in ((120, 170), (60, 200), (33, 41)):
        image = predictor.resized(sample())[:, :height, :width].contiguous()
        with torch.no_grad():
            expected = detections(predictor.model, image)
        found = dict(zip(names, exported(image), strict=True))
        assert expected["masks"].shape[1:] == (height, width)
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        counts.add(len(expected["masks"]))
    assert len(counts) > 1 and max(counts) > 0
    with pytest.raises(InputError, match="Test-time augmentation merges boxes"):
        DetectorWithTTA(model, short_edge_length=64, max_size=99)


def test_outputs_are_those_of_the_predictor() -> None:
    predictor = predictor_of(trained("faster_brs"))
    image = sample()
    resized = predictor.resized(image)
    with torch.no_grad():
        outputs = detections(predictor.model, resized)
    (found,) = predictor([image])
    scale = torch.tensor([image.shape[1] / resized.shape[2], image.shape[0] / resized.shape[1]])
    boxes = outputs["boxes"] * scale.repeat(2)
    assert np.allclose(boxes.numpy(), found.boxes, atol=1e-3)
    assert np.array_equal(outputs["scores"].numpy(), found.scores)
    assert np.array_equal(outputs["labels"].numpy(), found.labels)


PAGE = Path(__file__).parents[2] / "docs" / "prediction.md"
# Neither can be imported, as on a machine without them.
ALONE = "import sys; sys.modules.update(brloss_d2=None, detectron2=None)\n"


def test_the_documented_program_runs_alone(tmp_path: Path) -> None:
    """The file is all that a fresh Python needs: frozen weights, names, threshold."""
    predictor = predictor_of(trained("faster_brs"))
    (every,) = predictor([sample()])
    predictor.categories = Categories(("a", "b", "c", "Schraube ü", "e"), (3, 4, 5, 6, 7))
    predictor.score_threshold = threshold = float(every.scores[5])
    Image.fromarray(sample()).save(tmp_path / "photo.jpg", format="PNG")
    export_torchscript(predictor, sample(), str(tmp_path / "detector.ts"))
    assert any(p.requires_grad for p in predictor.model.parameters())

    (snippet,) = (b for b in PAGE.read_text("utf-8").split("```python\n") if "torch.jit.load" in b)
    frozen = (
        "assert not detector.training\nassert not any(x.requires_grad for x in found.values())\n"
    )
    frozen += "assert not any(p.requires_grad for p in detector.parameters())\n"
    frozen += "print(about['score_threshold'], about['category_ids'])\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE + snippet.partition("```")[0] + frozen],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    expected = [
        f"{predictor.categories.names[label]} {float(score):.3f}"
        for label, score in zip(every.labels[:6], every.scores[:6], strict=True)
    ]
    shown = [line.partition(" [")[0] for line in lines]
    assert [name.rpartition(" ")[0] for name in shown] == [n.rpartition(" ")[0] for n in expected]
    assert last == f"{threshold} [3, 4, 5, 6, 7]"


def squares() -> Predictor:
    model = BrightSquares(2, 0.1)
    nn.init.ones_(model.scale)
    return predictor_of(model.eval())


def test_a_trace_that_does_not_follow_is_refused(tmp_path: Path, monkeypatch) -> None:
    """Boxes of this model go through Python's int(), which a trace takes for constants."""
    monkeypatch.setattr("brloss_d2.prediction.export.detections", _detections)
    with pytest.raises(InputError, match=r"differs from the detector.*boxes by up to"):
        export_torchscript(squares(), square_image(), str(tmp_path / "a.ts"))
    assert not list(tmp_path.iterdir())


def _detections(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    (found,) = (x["instances"] for x in model([{"image": image, **_size(image)}]))
    outputs = {"boxes": found.pred_boxes.tensor, "scores": found.scores}
    return {**outputs, "labels": found.pred_classes}


def _size(image: Tensor) -> dict[str, int]:
    return {"height": int(image.shape[1]), "width": int(image.shape[2])}


def test_a_sample_without_objects_is_refused(tmp_path: Path) -> None:
    predictor = predictor_of(trained("faster_brs"))
    empty = np.zeros((64, 64, 3), np.uint8)
    predictor.model.roi_heads.box_predictor.test_score_thresh = 0.9999
    with pytest.raises(InputError, match="finds nothing in the sample image"):
        export_torchscript(predictor, empty, str(tmp_path / "a.ts"))


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    predictor = predictor_of(trained("retinanet_alrp"))
    with pytest.raises(InputError, match="There is no folder"):
        export_torchscript(predictor, sample(), str(tmp_path / "gone" / "a.ts"))


@pytest.mark.skipif(bool(importlib.util.find_spec("onnx")), reason="onnx is installed")
def test_onnx_without_its_package(tmp_path: Path) -> None:
    predictor = predictor_of(trained("retinanet_alrp"))
    with pytest.raises(InputError, match=r"Module onnx is not installed\. It needs the package"):
        export_onnx(predictor, sample(), str(tmp_path / "a.onnx"))
    assert not list(tmp_path.iterdir())
