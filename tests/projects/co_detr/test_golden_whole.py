"""Co-Deformable-DETR and BRS-DETR against the published implementation, from images to detections.

The weights of the file in our detector, one training step and inference. What the published code
draws at random is taken from the file.
"""

import re

import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.helpers.golden_models import assert_gradients, available, load
from tests.projects.co_detr.golden_detector import NAMES, detector, inputs, use_stored_samples

_NAME = re.compile(
    r"loss_(rpn_|dense_)?(rank|sort|cls|box_reg|l1|giou|quality)"
    r"(_roi|_dense)?(?:_layer(\d)|(_proposals))?"
)
_TERMS = {"box_reg": "bbox", "l1": "bbox", "giou": "iou", "quality": "centerness"}


@pytest.fixture(scope="module", params=available(*NAMES))
def golden(request):
    return load(request.param)


@pytest.fixture(scope="module")
def model(golden):
    return detector(golden)


def published_name(name: str, golden) -> str:
    head, term, source, layer, proposals = _NAME.fullmatch(name).groups()
    term = _TERMS.get(term, term)
    if proposals:
        return f"enc_loss_{term}"
    if layer is not None:
        prefix = "" if f"loss/d{layer}.loss_{term}" not in golden else f"d{layer}."
        suffix = {None: "", "_roi": "_aux0", "_dense": "_aux1"}[source]
        return f"{prefix}loss_{term}{suffix}"
    if head == "rpn_":
        return f"loss_rpn_{term}"
    if head == "dense_":
        return f"loss_{term}1"
    return f"loss_cls{0}" if term == "cls" else f"loss_{_roi(golden)}{term}0"


def _roi(golden) -> str:
    return "roi_" if "loss/loss_roi_rank0" in golden else ""


def train_step(model, golden) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    with EventStorage(), use_stored_samples(model, golden):
        losses = model(inputs(golden))
    sum(losses.values()).backward()
    return losses


def test_training_step(golden, model):
    losses = {published_name(k, golden): x for k, x in train_step(model, golden).items()}
    expected = {k.removeprefix("loss/") for k in golden.keys("loss/")} - {"acc0"}
    assert losses.keys() == expected
    for name, value in losses.items():
        stored = golden.tensor(f"loss/{name}")
        torch.testing.assert_close(value.detach(), stored, rtol=1e-4, atol=0, msg=name)
    total = sum(losses.values()).detach()
    torch.testing.assert_close(total, golden.tensor("loss_total"), rtol=1e-5, atol=0)
    assert_gradients(model, golden, "co_deformable_detr", tolerance=1e-3)


def test_detections(golden, model):
    images = inputs(golden)
    for x, (height, width) in zip(images, golden.tensor("input/original_hw").tolist(), strict=True):
        x.update(height=height, width=width)
    with torch.no_grad():
        found = model.eval()(images)
    for i, result in enumerate(found):
        prefix = f"detections/original_scale/image{i}"
        stored = golden.tensor(f"{prefix}/boxes_scores")
        ours = result["instances"]
        assert torch.equal(ours.pred_classes, golden.tensor(f"{prefix}/classes").long())
        torch.testing.assert_close(ours.pred_boxes.tensor, stored[:, :4], rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.scores, stored[:, 4], rtol=0, atol=1e-5)
