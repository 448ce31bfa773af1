"""Probabilistic anchor assignment."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.criteria.targets import sort_in_groups
from brloss_d2.losses import BoxLoss, GIoULoss, ScoreLoss, SigmoidFocalLoss
from brloss_d2.modeling.matching import kept_rows
from brloss_d2.modeling.one_stage.assigners.base import (
    BACKGROUND,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
)
from brloss_d2.modeling.one_stage.assigners.gaussian_mixture import split_in_two
from brloss_d2.modeling.one_stage.assigners.iou import MaxIoUAssigner
from brloss_d2.utils.devices import upload


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
        return self.of_images([anchors], [objects], [predictions])[0]

    @torch.no_grad()
    def of_images(
        self,
        anchors: Sequence[LevelAnchors],
        objects: Sequence[Instances],
        predictions: Sequence[AnchorPredictions | None],
    ) -> list[Tensor]:
        """Assign the anchors of each image of a batch; the host waits for a GPU twice.

        Raises:
            ValueError: If there are no predictions.
        """
        sizes, num_levels = [len(x) for x in anchors], len(anchors[0].counts)
        claims = torch.cat(list(map(self.candidates, anchors, objects)))
        rows, counts = kept_rows(claims >= 0, sizes)
        own = zip(rows.split(counts), accumulate([0, *sizes]), strict=False)
        of_image = [
            self.required(x)[i - first] for x, (i, first) in zip(predictions, own, strict=True)
        ]
        candidates = AnchorPredictions(
            torch.cat([x.logits for x in of_image]), torch.cat([x.boxes for x in of_image])
        )
        every = Instances(
            objects[0].image_size,
            gt_boxes=Boxes.cat([x.gt_boxes for x in objects]),
            gt_classes=torch.cat([x.gt_classes for x in objects]),
        )
        numbers = torch.tensor([len(x) for x in objects])
        first_object = (numbers.cumsum(0) - numbers).repeat_interleave(torch.tensor(counts))
        owners = claims[rows] + upload(first_object, rows.device)
        losses = self.candidate_losses(candidates, every, owners)
        levels = torch.cat([x.levels for x in anchors])[rows]
        order, place = sort_in_groups(losses, owners * num_levels + levels)
        losses[order] = losses[order].masked_fill(place >= self.topk, torch.inf)
        positive = _split(losses, owners, len(every), self.topk * num_levels)
        assigned = torch.full_like(claims, BACKGROUND)
        assigned[rows] = claims[rows].where(positive, BACKGROUND)
        return list(assigned.split(sizes))

    def candidate_losses(
        self, predictions: AnchorPredictions, objects: Instances, owners: Tensor
    ) -> Tensor:
        """Return the (C,) loss of each candidate with respect to its object, lower is better."""
        logits = predictions.logits.float()
        targets = F.one_hot(objects.gt_classes[owners], logits.shape[1]).to(logits.dtype)
        box_losses = self.box_loss(predictions.boxes, objects.gt_boxes.tensor[owners])
        return self.cls_loss(logits, targets).sum(1) + self.box_weight * box_losses


def _split(losses: Tensor, owners: Tensor, num_objects: int, most: int) -> Tensor:
    """(C,) bool, which candidates become positive, of those whose loss is not infinite.

    Objects have at most `most` of these. The host waits for a GPU.
    """
    order, place = sort_in_groups(losses, owners)
    # A row per object with its losses in ascending order, and a column for all that is left out.
    entries = owners[order], place.clamp(max=most)
    table = losses.new_full((num_objects, most + 1), torch.inf).index_put_(entries, losses[order])
    table = table.cpu()[:, :most]  # where fitting takes no launches, and to stop no waits
    valid = table.isfinite()
    # Entries of the lower component up to its likeliest one; a single candidate is background.
    lower, likelihood = split_in_two(table, valid)
    lower &= valid & (valid.sum(1, keepdim=True) >= 2)
    peak = likelihood.masked_fill(~lower, -torch.inf).argmax(1)
    chosen = lower & (torch.arange(most) <= peak[:, None])
    positive = torch.zeros_like(owners, dtype=torch.bool)
    return positive.index_put_((order,), upload(F.pad(chosen, (0, 1)), order.device)[entries])
