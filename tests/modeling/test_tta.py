"""Test-time augmentation: what it must not change, and what it merges."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import batched_nms
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.model_zoo import get_config
from brloss_d2.modeling import DetectorWithTTA
from brloss_d2.modeling.test_time_augmentation import View
from tests.helpers import small_yolact
from tests.helpers.bright_squares import BrightSquares
from tests.helpers.golden_rcnn import shrink

HEIGHT, WIDTH = 96, 128
# The image is used as it is, and in a second size that resizing rounds symmetrically.
SIZES: dict[str, Any] = {"short_edge_length": HEIGHT, "max_size": 320}
DETECTORS = (
    "quick/atss_R_18_FPN_brs_300it",
    "quick/paa_R_18_FPN_brs_300it",
    "quick/retinanet_R_18_FPN_brs_300it",
    "quick/fovea_R_18_FPN_brs_300it",
    "quick/faster_rcnn_R_18_FPN_ce_300it",
    "coco/cascade_rcnn_R_50_FPN_ce_1x",
    "tiny_mask_rcnn",
)


def built(name: str) -> nn.Module:
    """A detector of three classes with random weights, which finds many objects."""
    torch.manual_seed(0)
    if name == "tiny_mask_rcnn":
        file = Path(__file__).parents[1] / "helpers" / f"{name}.py"
        cfg = LazyConfig.load(str(file)).model
    else:
        cfg = get_config(name).model
    if name.startswith("coco"):
        shrink(cfg)
    if "roi_heads" in cfg:
        heads = cfg.roi_heads
        heads.num_classes = 3
        for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
            predictor.test_score_thresh = 0.0
    else:
        cfg.num_classes = 3
        cfg.postprocessor.select.update(score_thresh=0.0, topk=200)
    return instantiate(cfg).eval()


@pytest.fixture(scope="module", params=DETECTORS, ids=lambda name: name.rpartition("/")[2])
def detector(request: pytest.FixtureRequest) -> nn.Module:
    return built(request.param)


@pytest.fixture
def image() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(256, (3, HEIGHT, WIDTH), dtype=torch.uint8)


@torch.no_grad()
def detect(model: nn.Module, image: Tensor) -> Instances:
    """Detect in an image whose original is twice as large."""
    (output,) = model.eval()([{"image": image, "height": 2 * HEIGHT, "width": 2 * WIDTH}])
    return output["instances"]


def mirrored(found: Instances) -> Instances:
    width = found.image_size[1]
    x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
    found.pred_boxes = Boxes(torch.stack([width - x1, y0, width - x0, y1], 1))
    if found.has("pred_masks"):
        found.pred_masks = found.pred_masks.flip(2)
    return found


def assert_same(actual: Instances, expected: Instances) -> None:
    assert actual.image_size == expected.image_size
    assert actual.get_fields().keys() == expected.get_fields().keys()
    assert len(actual) == len(expected) > 0
    boxes = actual.pred_boxes.tensor, expected.pred_boxes.tensor
    torch.testing.assert_close(*boxes, rtol=0, atol=2e-3)
    torch.testing.assert_close(actual.scores, expected.scores, rtol=0, atol=1e-6)
    assert torch.equal(actual.pred_classes, expected.pred_classes)
    if expected.has("pred_masks"):
        assert (actual.pred_masks != expected.pred_masks).float().mean() < 1e-4


def test_the_plain_view_alone_changes_nothing(detector: nn.Module, image: Tensor) -> None:
    plain = detect(detector, image)
    assert len(plain) > 30
    assert_same(detect(DetectorWithTTA(detector, **SIZES, scales=[1.0], flip=False), image), plain)
    # The same view twice gives each box once, and the mean of equal masks.
    twice = DetectorWithTTA(detector, **SIZES, scales=[1.0, 1.0], flip=False)
    assert_same(detect(twice, image), plain)
    # Another size alone is the test at that size.
    smaller = View(HEIGHT // 2, 160, mirrored=False).resized(image)
    assert smaller.shape == (3, HEIGHT // 2, WIDTH // 2)
    half = DetectorWithTTA(detector, **SIZES, scales=[0.5], flip=False)
    assert_same(detect(half, image), detect(detector, smaller))


def test_empty_boxes_count_as_in_the_plain_test(image: Tensor) -> None:
    """Those outside of the image are dropped after the best ones have been chosen."""
    model = built("quick/retinanet_R_18_FPN_brs_300it")
    model.head.bbox_pred.bias.data[0] = 40.0  # the first anchor of each cell moves far to the right
    model.postprocessor.max_detections = 30
    plain = detect(model, image)
    assert 0 < len(plain) < 30
    assert_same(detect(DetectorWithTTA(model, **SIZES, scales=[1.0], flip=False), image), plain)


def test_a_mirrored_image_and_the_order_of_views(detector: nn.Module, image: Tensor) -> None:
    model = DetectorWithTTA(detector, **SIZES, scales=[0.75, 1.0])
    found = detect(model, image)
    assert found.scores.min() > detect(detector, image).scores.min(), "more candidates"
    assert_same(mirrored(detect(model, image.flip(2))), found)
    model.views.reverse()
    assert_same(detect(model, image), found)


class Table(nn.Module):
    """Detector with non-maximum suppression whose candidates depend on the size of the image.

    Args:
        candidates: box, in parts of the image, and score of each candidate by the width of the
            image; all are of class 0.
    """

    test_nms_thresh, max_detections_per_image = 0.5, 100

    def __init__(self, candidates: dict[int, list[tuple[list[float], float]]]) -> None:
        super().__init__()
        self.candidates = candidates

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        (x,) = batch
        height, width = x["image"].shape[1:]
        boxes, scores = zip(*self.candidates[width], strict=True)
        sides = torch.tensor([width, height, width, height])
        found = Instances((height, width), pred_boxes=Boxes(torch.tensor(boxes) * sides))
        found.scores, found.pred_classes = torch.tensor(scores), torch.zeros(len(scores)).long()
        fields = found.pred_boxes.tensor, found.scores, found.pred_classes
        keep = batched_nms(*fields, self.test_nms_thresh)[: self.max_detections_per_image]
        return [{"instances": detector_postprocess(found[keep], x["height"], x["width"])}]


LEFT, MIDDLE, RIGHT = [0.0, 0.0, 0.4, 1.0], [0.1, 0.0, 0.5, 1.0], [0.2, 0.0, 0.6, 1.0]
TWO_SIZES: dict[str, Any] = {**SIZES, "scales": [0.5, 1.0], "flip": False}


def test_suppression_comes_after_merging(image: Tensor) -> None:
    """Of three boxes in a row the first view drops one, whose neighbor loses to the second view."""
    table = Table({64: [(MIDDLE, 0.8), (LEFT, 0.7)], 128: [(RIGHT, 0.9)]})
    found = detect(DetectorWithTTA(table, **TWO_SIZES), image)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7]))
    corners = found.pred_boxes.tensor[:, 0] / (2 * WIDTH)
    torch.testing.assert_close(corners, torch.tensor([0.2, 0.0]))
    assert (table.test_nms_thresh, table.max_detections_per_image) == (0.5, 100)


def test_the_settings_of_the_model_return_after_an_error(image: Tensor) -> None:
    table = Table({128: [(MIDDLE, 0.8)]})
    with pytest.raises(KeyError):
        detect(DetectorWithTTA(table, **TWO_SIZES), image)
    assert (table.test_nms_thresh, table.max_detections_per_image) == (0.5, 100)


def test_number_of_detections_is_that_of_the_model(image: Tensor) -> None:
    table = Table({64: [(LEFT, 0.8)], 128: [(RIGHT, 0.9)]})
    table.max_detections_per_image = 1
    assert detect(DetectorWithTTA(table, **TWO_SIZES), image).scores.tolist() == [
        pytest.approx(0.9)
    ]


def test_limit_of_box_sides(image: Tensor) -> None:
    """The short side of the boxes is 0.4 times the 128 pixels of the image's width."""
    table = Table({64: [(LEFT, 0.8)], 128: [(RIGHT, 0.9)]})
    for limits, expected in (([51, 0], [0.9]), ([52, 51], [0.8]), ([0, 0], [0.9, 0.8])):
        model = DetectorWithTTA(table, **TWO_SIZES, max_box_sides=limits)
        torch.testing.assert_close(detect(model, image).scores, torch.tensor(expected))


class WithoutSuppression(BrightSquares):
    """Detector that finds the same square in any size, as two overlapping objects of class 1."""

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        outputs = super().forward([{k: x[k] for k in ("image", "height", "width")} for x in batch])
        for output in outputs:
            output["instances"].remove("pred_masks")
            output["instances"].pred_classes.fill_(1)
        return outputs


def square() -> Tensor:
    image = torch.full((3, HEIGHT, WIDTH), 20, dtype=torch.uint8)
    image[:, 32:64, 32:96] = 220
    return image


def test_a_model_without_suppression() -> None:
    """A DETR's detections are suppressed if there are several views, and as many are kept."""
    model = WithoutSuppression(2, 0.0)
    nn.init.ones_(model.scale)
    alone = DetectorWithTTA(model, **SIZES, scales=[1.0], flip=False, nms_thresh=0.4)
    assert_same(detect(alone, square()), detect(model, square()))
    assert len(detect(alone, square())) == 2
    several = DetectorWithTTA(model, **SIZES, scales=[0.5, 1.0, 1.5], nms_thresh=0.4)
    found = detect(several, square())
    assert len(found) == 1
    expected = torch.tensor([[64.0, 64.0, 192.0, 128.0]])
    torch.testing.assert_close(found.pred_boxes.tensor, expected, rtol=0, atol=2.0)


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(InputError, match=r"BrightSquares also predicts pred_masks: switch it off"):
        detect(DetectorWithTTA(BrightSquares(2, 0.0), **SIZES), square())


def test_yolact_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="YOLACT also predicts pred_masks: switch it off"):
        DetectorWithTTA(small_yolact.build("rs").eval(), **TWO_SIZES)


def test_no_objects() -> None:
    detector = built("tiny_mask_rcnn")
    detector.roi_heads.box_predictor.test_score_thresh = 1.0
    found = detect(DetectorWithTTA(detector, **TWO_SIZES), square())
    assert len(found) == 0 and found.pred_masks.shape == (0, 2 * HEIGHT, 2 * WIDTH)


def test_training_is_that_of_the_model() -> None:
    model = DetectorWithTTA(nn.Identity().train())
    assert model.training and model([{"image": 3}]) == [{"image": 3}]


@pytest.mark.parametrize(
    "options",
    [{"scales": x} for x in ([], [0.0], [1.0, float("nan")], [1e-4])]
    + [{"scales": [1.0], "max_box_sides": [1, 2]}],
)
def test_wrong_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected scales that leave at least a pixel, and as"):
        DetectorWithTTA(nn.Module(), **options)
