"""Faster R-CNN with aLRP Loss against the published implementation: both heads, and the whole."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.utils.events import EventStorage

from brloss_d2.modeling.matching import match_predictions
from tests.helpers.golden_models import (
    assert_gradients,
    ground_truth,
    load,
    load_weights,
    relative,
)
from tests.helpers.golden_rcnn import shrink
from tests.helpers.small_one_stage import difference_of_detections

ROOT = Path(__file__).parents[2]
CODER = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
CLASSES = 5

golden = load("faster_rcnn_alrp")
tensor = golden.tensor
TERMS = {
    "loss_rpn_rank": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_bbox",
    "loss_rank": "loss_cls",
    "loss_box_reg": "loss_bbox",
}


def config():
    return LazyConfig.load(str(ROOT / "configs/coco/faster_rcnn_R_50_FPN_alrp_500s_100e.py")).model


def criterion(site: str):
    cfg = config()
    head = cfg.proposal_generator if site == "rpn" else cfg.roi_heads.box_predictor
    return instantiate(head.criterion)


def level_major(kind: str, channels: int) -> torch.Tensor:
    """(R, channels) outputs in the order level, image, row, column, anchor."""
    maps = [tensor(f"rpn/{kind}/p{level}") for level in range(2, 7)]
    flat = [
        m.unflatten(1, (3, channels)).permute(0, 3, 4, 1, 2).reshape(-1, channels) for m in maps
    ]
    return torch.cat(flat)


def rpn_inputs():
    image, index = tensor("rpn/target/positive_image_and_index").long().unbind(1)
    sizes = [tensor(f"rpn/objectness/p{level}")[0].numel() for level in range(2, 7)]
    starts = torch.tensor([0, *sizes]).cumsum(0)
    level = torch.bucketize(index, starts[1:], right=True)
    row = 2 * starts[level] + image * torch.tensor(sizes)[level] + index - starts[level]
    order = row.argsort()
    references = tensor("rpn/anchors")[index][order]
    gt_boxes = CODER.apply_deltas(tensor("rpn/target/positive_box_targets")[order], references)
    logits = level_major("objectness", 1).requires_grad_()
    targets = tensor("site/rpn/targets").long()
    labels = torch.where(targets < 0, -1, 1 - targets)
    deltas = level_major("deltas", 4)[row[order]]
    return logits, labels, deltas, references, gt_boxes, 1


def roi_inputs():
    labels = tensor("roi/target/labels").long()
    rows = (labels < CLASSES).nonzero().squeeze(1)
    logits = tensor("roi/cls_logits").requires_grad_()
    deltas = tensor("roi/deltas").view(-1, CLASSES, 4)[rows, labels[rows]]
    gt_boxes = tensor("roi/target/box_targets")[rows]
    return logits, labels, deltas, tensor("roi/rois")[rows, 1:], gt_boxes, CLASSES


@pytest.mark.parametrize(
    ("site", "inputs", "weight", "names"),
    [
        ("rpn", rpn_inputs, 0.2, ("loss_rpn_cls", "loss_rpn_bbox")),
        ("roi", roi_inputs, 1.0, ("loss_cls", "loss_bbox")),
    ],
)
def test_losses_and_gradient(site, inputs, weight, names):
    logits, labels, deltas, references, gt_boxes, classes = inputs()
    matched = match_predictions(
        logits,
        labels,
        ((labels >= 0) & (labels < classes)).nonzero().squeeze(1),
        deltas,
        references,
        gt_boxes,
        transform=CODER,
        num_classes=classes,
        rows_per_image=[len(labels)],
    )
    module = criterion(site)
    errors = matched.box_losses(module.box_loss) * module.error_scale
    torch.testing.assert_close(errors, tensor(f"site/{site}/error"), rtol=1e-5, atol=1e-6)
    losses = {key: weight * value for key, value in module(matched).losses.items()}
    for key, name in zip(("loss_rank", "loss_box_reg"), names, strict=True):
        expected = tensor(f"loss/{name}")
        torch.testing.assert_close(losses[key].detach(), expected, rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    expected = tensor(f"site/{site}/logit_grad")
    assert relative(logits.grad.flatten(), expected) < 1e-4


@pytest.fixture
def model():
    """The detector of the leaf with the sizes and weights of the file.

    The published RPN keeps boxes without area; the stored batch is normalized.
    """
    cfg = config()
    shrink(cfg)
    cfg.roi_heads.box_head.fc_dims = [32, 32]
    cfg.roi_heads.box_predictor.input_shape.channels = 32
    cfg.proposal_generator.update(
        pre_nms_topk=(300, 300), post_nms_topk=(200, 200), min_box_size=-1.0
    )
    cfg.pixel_mean, cfg.pixel_std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    model = instantiate(cfg)
    load_weights(model, golden, "faster_rcnn")
    return model


def inputs(scale: float = 1.0) -> list[dict]:
    """Images without padding, and their objects."""
    sizes = tensor("input/image_hw").tolist()
    return [
        {"image": scale * x[:, :h, :w], "instances": objects}
        for x, (h, w), objects in zip(
            tensor("input/batch"), sizes, ground_truth(golden), strict=True
        )
    ]


def losses_of(model, scale: float = 1.0) -> dict[str, torch.Tensor]:
    with EventStorage():
        return {TERMS[name]: value for name, value in model.train()(inputs(scale)).items()}


def test_whole_training_step(model):
    losses = losses_of(model)
    for name, value in losses.items():
        torch.testing.assert_close(value.detach(), tensor(f"loss/{name}"), rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    assert_gradients(model, golden, "faster_rcnn")


def test_self_balancing_over_three_steps(model):
    """Losses of the batch times 1, 1/2 and 1/4, with a period of two."""
    predictor = model.roi_heads.box_predictor
    balancers = {
        "rpn": model.proposal_generator.criterion.balancer,
        "roi": predictor.criterion.balancer,
    }
    for balancer in balancers.values():
        balancer.pools_per_epoch = 2
    for step in range(3):
        prefix = f"self_balance_sequence/step{step}"
        for name, value in losses_of(model, 0.5**step).items():
            expected = tensor(f"{prefix}/{name}")
            torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
        for site, balancer in balancers.items():
            expected = tensor(f"{prefix}/weight_after_{site}")
            torch.testing.assert_close(balancer.weight, expected, rtol=1e-5, atol=0)


def test_detections(model):
    with torch.no_grad():
        found = model.eval().inference(inputs(), do_postprocess=False)
    for i, detections in enumerate(found):
        prefix = f"detections/network_scale/image{i}"
        stored = tensor(f"{prefix}/boxes_scores")
        pixels, score = difference_of_detections(
            detections, stored[:, :4], stored[:, 4], tensor(f"{prefix}/classes")
        )
        assert pixels < 1e-3
        assert score < 1e-5
