"""Faster R-CNN against the published implementation, each step fed with its stored inputs.

The file of BRS is shipped; with BRLOSS_D2_GOLDEN naming the folder of the full set, that of RS and
whatever else fits is compared as well.
"""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from golden_models import Golden, available, load, relative

ROOT = Path(__file__).parents[2]
CLASSES = 5


@pytest.fixture(params=available("faster_brs", "faster_rs"))
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def model(golden):
    loss = golden.name.split("_")[1]
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
        h, w = golden.tensor("in/img_shape")[i].tolist()
        boxes = Boxes(golden.tensor(f"in/gt_boxes{i}"))
        images.append(
            Instances((h, w), gt_boxes=boxes, gt_classes=golden.tensor(f"in/gt_labels{i}"))
        )
    return images


def anchors(golden, rpn) -> list[Boxes]:
    return rpn.anchor_generator([golden.tensor(f"rpn/cls{level}") for level in range(5)])


class StoredHead(torch.nn.Module):
    """An RPN head that predicts what the file says."""

    def __init__(self, golden):
        super().__init__()
        self.logits = [golden.tensor(f"rpn/cls{i}").requires_grad_() for i in range(5)]
        self.deltas = [golden.tensor(f"rpn/reg{i}").requires_grad_() for i in range(5)]

    def forward(self, features):
        return self.logits, self.deltas


def run_rpn(golden, model):
    """Proposals, losses and the head whose leaves collect the gradients."""
    rpn = model.proposal_generator
    rpn.rpn_head = head = StoredHead(golden)
    features = {f"p{i + 2}": logits.detach() for i, logits in enumerate(head.logits)}
    sizes = [tuple(s) for s in golden.tensor("in/img_shape").tolist()]
    images = ImageList(golden.tensor("in/img"), sizes)
    return *rpn(images, features, ground_truth(golden)), head


def test_anchors(golden, model):
    for level, boxes in enumerate(anchors(golden, model.proposal_generator)):
        expected = golden.tensor("in/base_anchors")[level]
        torch.testing.assert_close(boxes.tensor[:3], expected)


def test_rpn_assignment(golden, model):
    rpn = model.proposal_generator
    gt = ground_truth(golden)
    labels, boxes = rpn.label_and_sample_anchors(anchors(golden, rpn), gt)
    for i in range(2):
        assigned = golden.tensor(f"rpn/assigned{i}")
        expected = torch.where(assigned >= 0, 1, torch.where(assigned == -1, 0, -1))
        assert torch.equal(labels[i].long(), expected)
        positive = assigned >= 0
        assert torch.equal(boxes[i][positive], gt[i].gt_boxes.tensor[assigned[positive]])


def test_rpn_losses_and_gradients(golden, model):
    _, losses, head = run_rpn(golden, model)
    published = {"box_reg": "bbox"}
    for name, value in losses.items():
        term = name.removeprefix("loss_rpn_")
        expected = golden.tensor(f"loss/loss_rpn_{published.get(term, term)}")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    for level in range(5):
        for kind, outputs in (("cls", head.logits), ("reg", head.deltas)):
            expected = golden.tensor(f"gradout/rpn/{kind}{level}")
            assert relative(outputs[level].grad, expected) < 1e-4, (kind, level)


def test_proposals(golden, model):
    proposals, _, _ = run_rpn(golden, model)
    for i, found in enumerate(proposals):
        expected = golden.tensor(f"rpn/proposals{i}")[:, :4]
        # The published RPN keeps boxes of no area, which fill up its 1000; ours drops them.
        expected = expected[(expected[:, 2:] > expected[:, :2]).all(1)]
        # As sets: scores closer than 1e-6 may swap.
        nearest = torch.cdist(expected, found.proposal_boxes.tensor, p=torch.inf).amin(1)
        assert (nearest < 1e-4).all()


def roi_inputs(golden):
    """Stored proposals as instances with their targets, image by image."""
    rois, labels = golden.tensor("roi/rois"), golden.tensor("roi/labels")
    matched, proposals = golden.tensor("roi/matched_gt"), []
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
        rows = golden.tensor("roi/rois")[:, 0] == i
        stored = golden.tensor("roi/rois")[rows, 1:]
        matches, labels = heads.proposal_matcher(pairwise_iou(gt.gt_boxes, Boxes(stored)))
        order, classes = heads._sample_proposals(matches, labels, gt.gt_classes)
        expected = golden.tensor("roi/labels")[rows]
        assert torch.equal(order, torch.arange(len(order)))  # stored foreground first already
        assert torch.equal(classes, expected)
        foreground = expected < CLASSES
        assert torch.equal(matches[foreground], golden.tensor("roi/matched_gt")[rows][foreground])


def test_roi_losses_and_gradients(golden, model):
    logits = golden.tensor("roi/cls").requires_grad_()
    deltas = golden.tensor("roi/reg").requires_grad_()
    losses = model.roi_heads.box_predictor.losses((logits, deltas), roi_inputs(golden))
    published = {"loss_box_reg": "loss_roi_bbox"}
    for name, value in losses.items():
        key = published.get(name, name.replace("loss_", "loss_roi_"))
        expected = golden.tensor(f"loss/{key}")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    assert relative(logits.grad, golden.tensor("gradout/roi/cls")) < 1e-4
    assert relative(deltas.grad, golden.tensor("gradout/roi/reg")) < 1e-4
