"""Faster, Mask and Cascade R-CNN against the published implementation, from images to detections.

The weights of the file in our detector, one training step and inference. Differences on purpose:

* Without any object the published code reports the constants 0.2 and 1 without gradient for the
  terms of RPN and box heads; ours are 0. So are the gradients of both.
* The published RPN proposes boxes of no area; `golden_rcnn.detector` has ours do so, too.
"""

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.utils.events import EventStorage

from tests.helpers.golden_models import (
    Golden,
    available,
    differences_of_detections,
    differences_of_gradients,
    ground_truth,
    images,
    load,
)
from tests.helpers.golden_rcnn import CONFIGS, NAMES, architecture, detector


@pytest.fixture(scope="module", params=available(*NAMES))
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture(scope="module")
def model(golden):
    return detector(golden)


def inputs(golden, empty: tuple[int, ...] = ()) -> list[dict]:
    objects = ground_truth(golden, empty)
    pairs = zip(images(golden), objects, strict=True)
    return [{"image": image, "instances": instances} for image, instances in pairs]


def train_step(model, golden, empty: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    """Losses under their published names, with gradients in the model."""
    model.train().zero_grad()
    with EventStorage():
        losses = model(inputs(golden, empty))
    sum(losses.values()).backward()
    return {published_name(name): value.detach() for name, value in losses.items()}


def published_name(name: str) -> str:
    term, _, stage = name.replace("box_reg", "bbox").partition("_stage")
    if not term.startswith("loss_rpn") and term != "loss_mask":
        term = term.replace("loss_", "loss_roi_")
    return f"s{stage}.{term}" if stage else term


def detect(model, golden, image: int, limit: int = 100):
    heads = model.eval().roi_heads
    cascade = architecture(golden) == "cascade_rcnn"
    predictor = heads.box_predictor[-1] if cascade else heads.box_predictor
    predictor.test_topk_per_image = limit
    with torch.no_grad():
        (found,) = model.inference([inputs(golden)[image]], do_postprocess=False)
        (pasted,) = model([inputs(golden)[image]])
    return found, pasted["instances"]


def test_pixels(golden):
    """Color order, mean and standard deviation of our configurations."""
    model = LazyConfig.load(str(CONFIGS / "coco/faster_rcnn_R_50_FPN_brs_1x.py")).model
    assert model.input_format == "RGB"
    for i, expected in enumerate(images(golden)):
        pixels = golden.tensor(f"in/raw{i}").permute(2, 0, 1)
        scaled = (pixels - column(model.pixel_mean)) / column(model.pixel_std)
        torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-5)


def column(values) -> torch.Tensor:
    return torch.tensor(list(values))[:, None, None]


def test_features(golden, model):
    with torch.no_grad():
        features = model.backbone(golden.tensor("in/img"))
    for level, found in enumerate(features.values()):
        expected = golden.tensor(f"fpn/{level}")
        torch.testing.assert_close(found[:, :4], expected, rtol=0, atol=5e-5)
        spread = torch.stack([found.mean((2, 3)), found.std((2, 3), correction=0)])
        expected = golden.tensor(f"fpn_stats/{level}")
        torch.testing.assert_close(spread, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("case", "empty"), [("", ()), ("nogt1/", (1,)), ("nogt_all/", (0, 1))])
def test_training_step(golden, model, case, empty):
    losses = train_step(model, golden, empty)
    keys = golden.keys(f"{case}loss/")
    assert len(keys) == len(losses) + 1
    for name, value in losses.items():
        if len(empty) == 2:
            assert value == 0, name
        else:
            expected = golden.tensor(f"{case}loss/{name}")
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=0, msg=name)
    by_gradient, by_norm = differences_of_gradients(model, golden, architecture(golden), case)
    assert len(by_gradient) == len(golden.keys(f"{case}grad/"))
    assert {name: x for name, x in by_gradient.items() if x > 1e-4} == {}
    assert {name: x for name, x in by_norm.items() if x > 1e-4} == {}


@pytest.mark.parametrize(("name", "image"), [("test0", 0), ("test1", 1), ("test0_all", 0)])
def test_detections(golden, model, name, image):
    found, pasted = detect(model, golden, image, 2000 if name == "test0_all" else 100)
    pixels, score, rows = differences_of_detections(golden, found, name)
    assert pixels < 1e-3
    assert score < 1e-5
    if f"{name}/mask_logits" in golden:
        logits = found.pred_masks[rows, 0].logit()
        expected = golden.tensor(f"{name}/mask_logits")
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        masks = pasted.pred_masks[rows].flatten(1)
        packed = golden.tensor(f"{name}/masks_packed")
        expected = unpack(packed, masks.shape[1])
        # Pixels on the boundary may fall to the other side.
        assert (masks != expected).sum(1).max() <= 3


def unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    bits = packed[:, :, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)
    return (bits & 1).bool().flatten(1)[:, :count]
