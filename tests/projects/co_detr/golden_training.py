"""A detector against a golden file: all losses and gradients of a step, and its detections."""

import re

import torch
from detectron2.utils.events import EventStorage

from tests.helpers.golden_models import Golden, assert_gradients
from tests.projects.co_detr.golden_detector import architecture, inputs, use_stored_samples

_NAME = re.compile(
    r"loss_(rpn_|dense_)?(rank|sort|cls|box_reg|l1|giou|quality)"
    r"(_roi|_dense|_denoising)?(?:_layer(\d)|(_proposals))?"
)
_TERMS = {"box_reg": "bbox", "l1": "bbox", "giou": "iou", "quality": "centerness"}


def assert_training_step(model, golden: Golden, case: str = "", draws=use_stored_samples) -> None:
    """Compare names and values of all losses, their sum, and all gradients.

    Args:
        model: detector with the weights of the file.
        golden: the file.
        case: prefix of the arrays, such as "balanced/".
        draws: context in which random draws are those of the file.
    """
    losses = train_step(model, golden, draws)
    losses = {published_name(k, golden): x for k, x in losses.items()}
    stem = f"{case}loss/"
    expected = {k.removeprefix(stem) for k in golden.keys(stem)} - {"acc0"}
    assert losses.keys() == expected
    for name, value in losses.items():
        stored = golden.tensor(f"{stem}{name}")
        torch.testing.assert_close(value.detach(), stored, rtol=1e-4, atol=0, msg=name)
    total = sum(losses.values()).detach()
    torch.testing.assert_close(total, golden.tensor(f"{case}loss_total"), rtol=1e-5, atol=0)
    assert_gradients(model, golden, architecture(golden), tolerance=1e-3, case=case)


def train_step(model, golden: Golden, draws=use_stored_samples) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    with EventStorage(), draws(model, golden):
        losses = model(inputs(golden))
    sum(losses.values()).backward()
    return losses


def published_name(name: str, golden: Golden) -> str:
    head, term, source, layer, proposals = _NAME.fullmatch(name).groups()
    term = _TERMS.get(term, term)
    if proposals:
        return f"enc_loss_{term}"
    if layer is not None:
        prefix = "" if f"loss/d{layer}.loss_{term}" not in golden else f"d{layer}."
        if source == "_denoising":
            return f"{prefix}dn_loss_{term}"
        suffix = {None: "", "_roi": "_aux0", "_dense": "_aux1"}[source]
        return f"{prefix}loss_{term}{suffix}"
    if head == "rpn_":
        return f"loss_rpn_{term}"
    if head == "dense_":
        return f"loss_{term}1"
    return f"loss_cls{0}" if term == "cls" else f"loss_{_roi(golden)}{term}0"


def _roi(golden: Golden) -> str:
    return "roi_" if "loss/loss_roi_rank0" in golden else ""


def assert_detections(model, golden: Golden) -> None:
    """Compare classes, boxes and scores of the detections in the size of the original images."""
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
