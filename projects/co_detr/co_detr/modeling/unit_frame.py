"""Frame in which the published ranking losses compare the boxes of the RPN."""

from dataclasses import replace

import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from brloss_d2.criteria import Criterion, CriterionOutput, MatchedPredictions


class UnitFrameCriterion(Criterion):
    """Wrapper of a criterion that decodes all boxes around the same unit box.

    The published RPN of BRS-DETR computes IoUs this way, with standard deviations that differ from
    those of its deltas, so that all IoUs come out higher: 0.5 becomes 0.87 to 0.94. Without this
    wrapper IoUs are those of the boxes.

    Args:
        criterion: losses of the decoded boxes.
        weights: inverse standard deviations of the deltas in the unit frame.
    """

    def __init__(
        self,
        criterion: Criterion,
        *,
        weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.transform = Box2BoxTransform(tuple(weights))

    def forward(self, matched: MatchedPredictions) -> CriterionOutput:
        """Decode the deltas around the unit box and apply the criterion.

        Raises:
            ValueError: `matched` has no deltas.
        """
        if matched.pred_deltas is None or matched.gt_deltas is None:
            raise ValueError("the unit frame needs pred_deltas and gt_deltas")
        unit = matched.gt_deltas.new_tensor([[-0.5, -0.5, 0.5, 0.5]]).expand_as(matched.gt_deltas)
        with torch.no_grad():
            gt_boxes = self.transform.apply_deltas(matched.gt_deltas, unit)
        pred_boxes = self.transform.apply_deltas(matched.pred_deltas, unit)
        boxes = dict(pred_boxes=pred_boxes, gt_boxes=gt_boxes)
        # Box losses on deltas compare the corners in the frame.
        corners = dict(pred_deltas=pred_boxes, gt_deltas=gt_boxes)
        return self.criterion(replace(matched, **boxes, **corners))
