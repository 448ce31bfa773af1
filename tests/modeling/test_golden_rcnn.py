"""Faster, Mask and Cascade R-CNN against the published implementation, step by step.

Each step is fed with its stored inputs. The files of BRS are shipped; with BRLOSS_D2_GOLDEN naming
the folder of the full set, those of RS are compared as well.
"""

from itertools import pairwise

import pytest
import torch
from detectron2.modeling.roi_heads import select_foreground_proposals
from detectron2.structures import Boxes, ImageList

from brloss_d2.modeling.matching import match_masks
from tests.helpers.golden_models import Golden, available, ground_truth, images, load, relative
from tests.helpers.golden_rcnn import CLASSES, NAMES, detector, regions, stages


@pytest.fixture(params=available(*NAMES))
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def model(golden):
    return detector(golden).train()


@pytest.fixture
def mask_golden(golden) -> Golden:
    if "mask/logits" not in golden:
        pytest.skip("no masks in this detector")
    return golden


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
    sizes = [tuple(image.shape[1:]) for image in images(golden)]
    batch = ImageList(golden.tensor("in/img"), sizes)
    return *rpn(batch, features, ground_truth(golden)), head


def compare_losses(golden, losses, published: str, ours: str) -> None:
    for name, value in losses.items():
        term = name.removeprefix(ours).replace("box_reg", "bbox")
        expected = golden.tensor(f"loss/{published}{term}")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)


def test_anchors(golden, model):
    for level, boxes in enumerate(anchors(golden, model.proposal_generator)):
        torch.testing.assert_close(boxes.tensor[:3], golden.tensor("in/base_anchors")[level])


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
    compare_losses(golden, losses, "loss_rpn_", "loss_rpn_")
    sum(losses.values()).backward()
    for level in range(5):
        for kind, outputs in (("cls", head.logits), ("reg", head.deltas)):
            expected = golden.tensor(f"gradout/rpn/{kind}{level}")
            assert relative(outputs[level].grad, expected) < 1e-4, (kind, level)


def test_proposals(golden, model):
    """As sets: scores closer than 1e-6 may swap."""
    proposals, _, _ = run_rpn(golden, model)
    for i, found in enumerate(proposals):
        expected = golden.tensor(f"rpn/proposals{i}")[:, :4]
        assert len(found) == len(expected)
        distance = torch.cdist(expected, found.proposal_boxes.tensor, p=torch.inf)
        assert (distance.amin(1) < 1e-4).all()
        assert (distance.amin(0) < 1e-4).all()


def test_proposals_have_an_area_by_default(golden, model):
    """All that the published RPN proposes and that is not empty, and others in its place."""
    model.proposal_generator.min_box_size = 0.0
    proposals, _, _ = run_rpn(golden, model)
    for i, found in enumerate(proposals):
        expected = golden.tensor(f"rpn/proposals{i}")[:, :4]
        expected = expected[(expected[:, 2:] > expected[:, :2]).all(1)]
        nearest = torch.cdist(expected, found.proposal_boxes.tensor, p=torch.inf).amin(1)
        assert (nearest < 1e-4).all()
        assert found.proposal_boxes.nonempty().all()


def test_region_assignment(golden, model):
    """Regions without the added ground truth, which has to come back with its own labels."""
    for stage in stages(golden, model):
        stored = regions(golden, stage)
        proposals = [image[~image.is_gt] for image in stored]
        found = model.roi_heads.label_and_sample_proposals(
            proposals, ground_truth(golden), stage.matcher
        )
        for labeled, image in zip(found, stored, strict=True):
            assert torch.equal(labeled.proposal_boxes.tensor, image.proposal_boxes.tensor)
            assert torch.equal(labeled.gt_classes, image.gt_classes)
            assert torch.equal(labeled.is_gt, image.is_gt)
            rows = image.gt_classes < CLASSES
            assert torch.equal(labeled.gt_boxes.tensor[rows], image.gt_boxes.tensor[rows])


def test_region_losses_and_gradients(golden, model):
    for stage in stages(golden, model):
        logits = golden.tensor(f"{stage.name}/cls").requires_grad_()
        deltas = golden.tensor(f"{stage.name}/reg").requires_grad_()
        losses = stage.predictor.losses((logits, deltas), regions(golden, stage))
        compare_losses(golden, losses, stage.losses, "loss_")
        sum(losses.values()).backward()
        # Through the refined boxes no gradient flows back from the next stage.
        assert relative(logits.grad, golden.tensor(f"gradout/{stage.name}/cls")) < 1e-4
        assert relative(deltas.grad, golden.tensor(f"gradout/{stage.name}/reg")) < 1e-4


def test_refinement_between_stages(golden, model):
    for k, (stage, following) in enumerate(pairwise(stages(golden, model))):
        outputs = golden.tensor(f"{stage.name}/cls"), golden.tensor(f"{stage.name}/reg")
        found = model.roi_heads._refine(outputs, regions(golden, stage), ground_truth(golden), k)
        for refined, image in zip(found, regions(golden, following), strict=True):
            boxes = refined.proposal_boxes.tensor
            torch.testing.assert_close(boxes, image.proposal_boxes.tensor, rtol=0, atol=1e-4)
            assert torch.equal(refined.gt_classes, image.gt_classes)


def test_mask_targets_weights_and_loss(mask_golden, model):
    golden, (stage,) = mask_golden, stages(mask_golden, model)
    proposals = regions(golden, stage)
    outputs = golden.tensor("roi/cls"), golden.tensor("roi/reg")
    losses = stage.predictor.losses(outputs, proposals)
    foreground, _ = select_foreground_proposals(proposals, CLASSES)
    chosen = model.roi_heads.mask_head.sample(foreground)
    stored = golden.tensor("mask/logits")
    logits = stored[:, None].expand(-1, CLASSES, -1, -1).clone().requires_grad_()
    masks = match_masks(logits, chosen)
    assert torch.equal(torch.cat([x.gt_classes for x in chosen]), golden.tensor("mask/labels"))
    assert torch.equal(masks.targets.float(), golden.tensor("mask/targets").float())
    torch.testing.assert_close(masks.weights, golden.tensor("mask/weights"), rtol=1e-5, atol=0)
    output = model.roi_heads.mask_head.criterion(masks)
    loss = output.losses["loss_mask"]
    torch.testing.assert_close(loss, golden.tensor("loss/loss_mask"), rtol=1e-5, atol=0)
    total = losses["loss_rank"] + losses["loss_sort"]
    balance = total / output.metrics()["mask_unbalanced"]
    torch.testing.assert_close(balance, golden.tensor("mask/sb"), rtol=1e-5, atol=0)
    loss.backward()
    assert logits.grad.any()


@torch.no_grad()
def test_outputs_on_made_up_regions(golden, model):
    """Level choice and pooling of small, large and empty regions, in every head."""
    heads, rois = model.roi_heads, golden.tensor("extra/rois")
    features = model.backbone(golden.tensor("in/img"))
    maps = [features[name] for name in heads.box_in_features]
    # The pooler takes the regions image by image.
    order = rois[:, 0].argsort(stable=True)
    boxes = [Boxes(rois[rois[:, 0] == i, 1:]) for i in range(2)]
    pooled = heads.box_pooler(maps, boxes)
    for stage in stages(golden, model):
        outputs = stage.predictor(stage.box_head(pooled))
        for kind, found in zip(("cls", "reg"), outputs, strict=True):
            expected = golden.tensor(f"extra/{kind}{stage.outputs}")[order]
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    if heads.mask_on:
        expected = golden.tensor("extra/mask_logits")
        first = rois[: len(expected)]
        order = first[:, 0].argsort(stable=True)
        boxes = [Boxes(first[first[:, 0] == i, 1:]) for i in range(2)]
        logits = heads.mask_head.layers(heads.mask_pooler(maps, boxes))
        torch.testing.assert_close(logits, expected[order], rtol=0, atol=2e-5)
