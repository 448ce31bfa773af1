"""The one-stage auxiliary head."""

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from brloss_d2.criteria import Criterion
from brloss_d2.modeling.matching import log_metrics
from brloss_d2.modeling.one_stage import DenseMatcher
from brloss_d2.modeling.one_stage.assigners import IGNORED, LevelAnchors
from brloss_d2.projects.co_detr.modeling.head_rows import HeadRows, cell_features


class AuxiliaryDenseHead(nn.Module):
    """A one-stage head that trains beside another detector and hands over its anchors.

    Args:
        head: logits and deltas, and quality if the criterion trains it; see `TowerHead`.
        anchor_generator: one anchor a cell.
        matcher: which anchor answers for which object.
        criterion: losses.
        loss_weight: of all terms.
    """

    def __init__(
        self,
        *,
        head: nn.Module,
        anchor_generator: nn.Module,
        matcher: DenseMatcher,
        criterion: Criterion,
        loss_weight: float = 1.0,
    ):
        super().__init__()
        self.head, self.anchor_generator, self.matcher = head, anchor_generator, matcher
        self.criterion, self.loss_weight = criterion, loss_weight

    def forward(
        self, features: list[Tensor], gt_instances: list[Instances]
    ) -> tuple[dict[str, Tensor], HeadRows]:
        """Losses of the head, and its anchors, those of the finest level first.

        Args:
            features: maps (N, C, H, W) of all levels.
            gt_instances: per image, with `gt_boxes` and `gt_classes`.
        """
        anchors = self.anchor_generator(features)
        matched, assigned = self.matcher(anchors, self.head(features), gt_instances)
        output = self.criterion(matched)
        log_metrics("dense_head", output)
        losses = {
            name.replace("loss_", "loss_dense_"): self.loss_weight * value
            for name, value in output.losses.items()
        }
        rows = [
            self._rows(LevelAnchors.cat(anchors).boxes, image, objects)
            for image, objects in zip(assigned, gt_instances, strict=True)
        ]
        boxes, labels, gt_boxes = (list(part) for part in zip(*rows, strict=True))
        return losses, HeadRows(boxes, labels, gt_boxes, cell_features(features))

    def _rows(
        self, anchors: Tensor, assigned: Tensor, objects: Instances
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and objects of the anchors of one image.

        As published, ignored anchors are background without extent.
        """
        boxes = anchors.masked_fill((assigned == IGNORED)[:, None], 0.0)
        foreground = (assigned >= 0).nonzero().squeeze(1)
        labels = torch.full_like(assigned, self.matcher.num_classes)
        labels[foreground] = objects.gt_classes[assigned[foreground]]
        gt_boxes = torch.zeros_like(anchors)
        gt_boxes[foreground] = objects.gt_boxes.tensor[assigned[foreground]]
        return boxes, labels, gt_boxes
