"""Frame in which the published RPN compares boxes."""

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from brloss_d2.criteria import MatchedPredictions, RankingCriterion
from brloss_d2.losses import (
    ConstantBalancer,
    GIoULoss,
    RankSortLoss,
    paired_box_iou,
)
from brloss_d2.projects.co_detr.modeling.unit_frame import UnitFrameCriterion

# Results of the published code for predictions on an anchor of 100 pixels: box of the object, IoU
# of the boxes, and IoU in the unit frame.
CASES = [
    ((100 / 3, 0, 400 / 3, 100), 0.50, 0.935),
    ((-50, 0, 150, 100), 0.50, 0.871),
    ((50, 50, 150, 150), 0.143, 0.822),
    ((-50, -50, 150, 150), 0.25, 0.758),
]


class Recorder(RankingCriterion):
    """Criterion that keeps its input."""

    def forward(self, matched):
        self.matched = matched
        return super().forward(matched)


@pytest.mark.parametrize(("box", "true", "framed"), CASES)
def test_overlaps_of_the_published_frame(box, true, framed):
    anchor, gt = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([box])
    deltas = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    pred_deltas = torch.zeros(1, 4, requires_grad=True)
    matched = MatchedPredictions(
        logits=torch.zeros(2, 1, requires_grad=True),
        labels=torch.tensor([0, 1]),
        pred_boxes=deltas.apply_deltas(pred_deltas, anchor),
        gt_boxes=gt,
        num_classes=1,
        pred_deltas=pred_deltas,
        gt_deltas=deltas.get_deltas(anchor, gt),
    )
    torch.testing.assert_close(paired_box_iou(anchor, gt).item(), true, rtol=0, atol=1e-3)
    inner = Recorder(RankSortLoss(), GIoULoss(), ConstantBalancer())
    output = UnitFrameCriterion(inner)(matched)
    found = paired_box_iou(inner.matched.pred_boxes, inner.matched.gt_boxes)
    torch.testing.assert_close(found.item(), framed, rtol=0, atol=1e-3)
    (gradient,) = torch.autograd.grad(output.losses["loss_box_reg"], pred_deltas)
    assert gradient.abs().max() > 0


def test_deltas_are_needed():
    boxes = torch.zeros(0, 4)
    matched = MatchedPredictions(torch.zeros(1, 1), torch.tensor([1]), boxes, boxes, 1)
    with pytest.raises(ValueError, match="pred_deltas and gt_deltas"):
        UnitFrameCriterion(RankingCriterion(RankSortLoss(), GIoULoss(), ConstantBalancer()))(
            matched
        )
