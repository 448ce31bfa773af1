"""Probabilistic anchor assignment."""

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn.functional import one_hot

from brloss_d2.criteria.targets import sort_in_groups
from brloss_d2.losses import BoxLoss, GIoULoss, ScoreLoss, SigmoidFocalLoss
from brloss_d2.modeling.one_stage.assigners.base import (
    BACKGROUND,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
    background,
)
from brloss_d2.modeling.one_stage.assigners.gaussian_mixture import split_in_two
from brloss_d2.modeling.one_stage.assigners.iou import MaxIoUAssigner


class PAAAssigner(Assigner):
    """Probabilistic anchor assignment (Kim & Lee, ECCV 2020).

    Of the candidates of an object those with the lowest losses on each level are split in two by a
    Gaussian mixture. Positive are those of the component of low losses, up to the one that is
    likeliest under the mixture; all others are background. The published ranking-loss detectors
    score candidates with focal loss, whatever they train with.

    Args:
        candidates: assigner that names the candidates of each object, from a low IoU on.
        topk: number of competing candidates per object and level.
        cls_loss: loss of a candidate's logits with respect to the class of its object.
        box_loss: loss of a candidate's decoded box.
        box_weight: factor of `box_loss` against `cls_loss`.
    """

    needs_predictions = True

    def __init__(
        self,
        candidates: MaxIoUAssigner,
        *,
        topk: int = 9,
        cls_loss: ScoreLoss | None = None,
        box_loss: BoxLoss | None = None,
        box_weight: float = 1.0,
    ):
        self.candidates, self.topk = candidates, topk
        self.cls_loss = cls_loss or SigmoidFocalLoss(alpha=0.25, gamma=2.0)
        self.box_loss = box_loss or GIoULoss()
        self.box_weight = box_weight

    @torch.no_grad()
    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors; see `Assigner`.

        Raises:
            ValueError: If there are no predictions.
        """
        predictions = self.required(predictions)
        owners = self.candidates(anchors, objects)
        rows = (owners >= 0).nonzero().squeeze(1)
        if len(rows) == 0:
            return background(anchors)
        owners = owners[rows]
        losses = self.candidate_losses(predictions[rows], objects, owners)
        groups = owners * len(anchors) + anchors.levels[rows]
        order, place = sort_in_groups(losses, groups)
        competing = order[place < self.topk]
        rows, owners, losses = rows[competing], owners[competing], losses[competing]
        most = self.topk * len(anchors.counts)
        positive = _split(losses, owners, len(objects), most)
        return background(anchors).scatter_(0, rows, owners.where(positive, BACKGROUND))

    def candidate_losses(
        self, predictions: AnchorPredictions, objects: Instances, owners: Tensor
    ) -> Tensor:
        """Return the (C,) loss of each candidate with respect to its object, lower is better."""
        logits = predictions.logits.float()
        targets = one_hot(objects.gt_classes[owners], logits.shape[1]).to(logits.dtype)
        box_losses = self.box_loss(predictions.boxes, objects.gt_boxes.tensor[owners])
        return self.cls_loss(logits, targets).sum(1) + self.box_weight * box_losses


def _split(losses: Tensor, owners: Tensor, num_objects: int, most: int) -> Tensor:
    """(C,) bool, which of the competing candidates, at most `most` per object, become positive."""
    order, place = sort_in_groups(losses, owners)
    # A row per object with its losses in ascending order; a single candidate is background.
    table, valid = losses.new_zeros(num_objects, most), owners.new_zeros(num_objects, most).bool()
    table[owners[order], place] = losses[order]
    valid[owners[order], place] = True
    # Entries of the lower component up to its likeliest one.
    lower, likelihood = split_in_two(table, valid)
    lower &= valid & (valid.sum(1, keepdim=True) >= 2)
    peak = likelihood.masked_fill(~lower, -torch.inf).argmax(1)
    chosen = lower & (torch.arange(most, device=losses.device) <= peak[:, None])
    positive = torch.zeros_like(owners, dtype=torch.bool)
    positive[order] = chosen[owners[order], place]
    return positive
