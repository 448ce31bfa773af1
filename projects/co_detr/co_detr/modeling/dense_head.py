"""One-stage auxiliary head."""

from functools import partial

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.modeling.one_stage import DenseMatcher
from brloss_d2.modeling.one_stage.assigners import IGNORED
from brloss_d2.projects.co_detr.modeling.custom_queries import HeadRows, take_rows


class AuxiliaryDenseHead(nn.Module):
    """One-stage head that trains next to another detector and hands over its anchors.

    Args:
        head: module that predicts logits and deltas, and quality if the criterion trains it; see
            `TowerHead`.
        anchor_generator: module that generates one anchor per cell.
        matcher: assignment of anchors to objects.
        criterion: losses of the head.
        loss_weight: factor of all losses.
    """

    def __init__(
        self,
        *,
        head: nn.Module,
        anchor_generator: nn.Module,
        matcher: DenseMatcher,
        criterion: Criterion,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.head, self.anchor_generator, self.matcher = head, anchor_generator, matcher
        self.criterion, self.loss_weight = criterion, loss_weight

    def forward(
        self, features: list[Tensor], gt_instances: list[Instances]
    ) -> tuple[dict[str, Tensor], HeadRows]:
        """Compute the losses of the head, and hand over its anchors, finest level first.

        Args:
            features: (N, C, H, W) map per level.
            gt_instances: objects per image, with `gt_boxes` and `gt_classes`.
        """
        anchors = self.anchor_generator(features)
        matched, assigned = self.matcher(anchors, self.head(features), gt_instances)
        output = self.criterion(matched)
        log_metrics("dense_head", output)
        losses = {
            name.replace("loss_", "loss_dense_"): self.loss_weight * value
            for name, value in output.losses.items()
        }
        # As published, ignored anchors are background boxes of size 0.
        boxes = Boxes.cat(anchors).tensor.where((assigned != IGNORED)[..., None], 0.0)
        objects = assigned.clamp(min=-1)
        classes = [x.gt_classes for x in gt_instances]
        cells = torch.cat([x.flatten(2) for x in features], 2).transpose(1, 2)
        return losses, HeadRows(
            boxes=boxes.unbind(),
            labels=take_rows(classes, objects, fill=self.matcher.num_classes).unbind(),
            gt_boxes=take_rows([x.gt_boxes.tensor for x in gt_instances], objects).unbind(),
            features=partial(take_rows, cells.unbind()),
        )
