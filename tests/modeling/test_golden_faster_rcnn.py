"""Faster R-CNN against the published implementation, each step fed with its stored inputs.

The file of BRS is shipped; with BRLOSS_D2_GOLDEN naming the folder of the full set, that of RS and
whatever else fits is compared as well.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "tests" / "golden"
FOLDER = Path(os.environ.get("BRLOSS_D2_GOLDEN", SHIPPED))
NAMES = [n for n in ("faster_brs", "faster_rs") if (FOLDER / f"{n}.npz").exists()] or ["faster_brs"]
CLASSES = 5


@pytest.fixture(params=NAMES)
def golden(request):
    return load(request.param)


@cache
def load(name: str):
    folder = FOLDER if (FOLDER / f"{name}.npz").exists() else SHIPPED
    with np.load(folder / f"{name}.npz") as z:
        return name, {key: z[key] for key in z.files if not key.startswith(("param", "f64"))}


def tensor(golden, key: str) -> torch.Tensor:
    return torch.from_numpy(np.array(golden[1][key]))


@pytest.fixture
def model(golden):
    loss = golden[0].split("_")[1]
    cfg = LazyConfig.load(str(ROOT / f"configs/coco/faster_rcnn_R_50_FPN_{loss}_1x.py")).model
    cfg.backbone.out_channels = cfg.proposal_generator.head.in_channels = 32
    cfg.roi_heads.num_classes = CLASSES
    cfg.roi_heads.box_head.input_shape.channels = 32
    cfg.roi_heads.box_head.fc_dims = [64, 64]
    cfg.roi_heads.box_predictor.input_shape.channels = 64
    return instantiate(cfg).train()


def ground_truth(golden) -> list[Instances]:
    images = []
    for i in range(2):
        h, w = tensor(golden, "in/img_shape")[i].tolist()
        boxes = Boxes(tensor(golden, f"in/gt_boxes{i}"))
        images.append(
            Instances((h, w), gt_boxes=boxes, gt_classes=tensor(golden, f"in/gt_labels{i}"))
        )
    return images


def anchors(golden, rpn) -> list[Boxes]:
    return rpn.anchor_generator([tensor(golden, f"rpn/cls{level}") for level in range(5)])


class StoredHead(torch.nn.Module):
    """An RPN head that predicts what the file says."""

    def __init__(self, golden):
        super().__init__()
        self.logits = [tensor(golden, f"rpn/cls{i}").requires_grad_() for i in range(5)]
        self.deltas = [tensor(golden, f"rpn/reg{i}").requires_grad_() for i in range(5)]

    def forward(self, features):
        return self.logits, self.deltas


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def run_rpn(golden, model):
    """Proposals, losses and the head whose leaves collect the gradients."""
    rpn = model.proposal_generator
    rpn.rpn_head = head = StoredHead(golden)
    features = {f"p{i + 2}": logits.detach() for i, logits in enumerate(head.logits)}
    sizes = [tuple(s) for s in tensor(golden, "in/img_shape").tolist()]
    images = ImageList(tensor(golden, "in/img"), sizes)
    return *rpn(images, features, ground_truth(golden)), head


def test_anchors(golden, model):
    for level, boxes in enumerate(anchors(golden, model.proposal_generator)):
        expected = tensor(golden, "in/base_anchors")[level]
        torch.testing.assert_close(boxes.tensor[:3], expected)


def test_rpn_assignment(golden, model):
    rpn = model.proposal_generator
    gt = ground_truth(golden)
    labels, boxes = rpn.label_and_sample_anchors(anchors(golden, rpn), gt)
    for i in range(2):
        assigned = tensor(golden, f"rpn/assigned{i}")
        expected = torch.where(assigned >= 0, 1, torch.where(assigned == -1, 0, -1))
        assert torch.equal(labels[i].long(), expected)
        positive = assigned >= 0
        assert torch.equal(boxes[i][positive], gt[i].gt_boxes.tensor[assigned[positive]])


def test_rpn_losses_and_gradients(golden, model):
    _, losses, head = run_rpn(golden, model)
    published = {"box_reg": "bbox"}
    for name, value in losses.items():
        term = name.removeprefix("loss_rpn_")
        expected = tensor(golden, f"loss/loss_rpn_{published.get(term, term)}")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    for level in range(5):
        for kind, outputs in (("cls", head.logits), ("reg", head.deltas)):
            expected = tensor(golden, f"gradout/rpn/{kind}{level}")
            assert relative(outputs[level].grad, expected) < 1e-4, (kind, level)


def test_proposals(golden, model):
    proposals, _, _ = run_rpn(golden, model)
    for i, found in enumerate(proposals):
        expected = tensor(golden, f"rpn/proposals{i}")[:, :4]
        # The published RPN keeps boxes of no area, which fill up its 1000; ours drops them.
        expected = expected[(expected[:, 2:] > expected[:, :2]).all(1)]
        # As sets: scores closer than 1e-6 may swap.
        nearest = torch.cdist(expected, found.proposal_boxes.tensor, p=torch.inf).amin(1)
        assert (nearest < 1e-4).all()


def roi_inputs(golden):
    """Stored proposals as instances with their targets, image by image."""
    rois, labels = tensor(golden, "roi/rois"), tensor(golden, "roi/labels")
    matched, proposals = tensor(golden, "roi/matched_gt"), []
    for i, gt in enumerate(ground_truth(golden)):
        rows = rois[:, 0] == i
        gt_boxes = gt.gt_boxes.tensor[matched[rows].clamp(min=0)]
        instances = Instances(gt.image_size, proposal_boxes=Boxes(rois[rows, 1:]))
        instances.set("gt_classes", labels[rows])
        instances.set("gt_boxes", Boxes(gt_boxes))
        proposals.append(instances)
    return proposals


def test_roi_assignment(golden, model):
    """The labels of the stored regions, the added ground truth among them."""
    heads = model.roi_heads
    for i, gt in enumerate(ground_truth(golden)):
        rows = tensor(golden, "roi/rois")[:, 0] == i
        stored = tensor(golden, "roi/rois")[rows, 1:]
        matches, labels = heads.proposal_matcher(pairwise_iou(gt.gt_boxes, Boxes(stored)))
        order, classes = heads._sample_proposals(matches, labels, gt.gt_classes)
        expected = tensor(golden, "roi/labels")[rows]
        assert torch.equal(order, torch.arange(len(order)))  # stored foreground first already
        assert torch.equal(classes, expected)
        foreground = expected < CLASSES
        assert torch.equal(matches[foreground], tensor(golden, "roi/matched_gt")[rows][foreground])


def test_roi_losses_and_gradients(golden, model):
    logits = tensor(golden, "roi/cls").requires_grad_()
    deltas = tensor(golden, "roi/reg").requires_grad_()
    losses = model.roi_heads.box_predictor.losses((logits, deltas), roi_inputs(golden))
    published = {"loss_box_reg": "loss_roi_bbox"}
    for name, value in losses.items():
        key = published.get(name, name.replace("loss_", "loss_roi_"))
        expected = tensor(golden, f"loss/{key}")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    assert relative(logits.grad, tensor(golden, "gradout/roi/cls")) < 1e-4
    assert relative(deltas.grad, tensor(golden, "gradout/roi/reg")) < 1e-4
