"""The best proposals of an RPN, with as few waits of the host as NMS allows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.utils.devices import upload


class Candidates(NamedTuple):
    """Proposals of N images before NMS, T of each.

    Attributes:
        boxes: (N, T, 4) XYXY in pixels, not clipped.
        scores: (N, T) objectness logits.
        levels: (T,) int64 pyramid level of each column.
    """

    boxes: Tensor
    scores: Tensor
    levels: Tensor

    @classmethod
    def decode(
        cls,
        anchors: list[Boxes],
        logits: list[Tensor],
        deltas: list[Tensor],
        *,
        transform: Box2BoxTransform,
        topk: int,
    ) -> "Candidates":
        """Decode the anchors of the highest scores of each level, and no others.

        Args:
            anchors: R_l anchors of each level.
            logits: (N, R_l) objectness logits of each level.
            deltas: (N, R_l, 4) encoded boxes of each level.
            transform: encoding of the boxes.
            topk: number of anchors of each level and image, as far as there are so many.
        """
        scores, rows = zip(*(x.topk(min(topk, x.shape[1]), dim=1) for x in logits), strict=True)
        chosen = [
            x.gather(1, i[..., None].expand(-1, -1, 4)) for x, i in zip(deltas, rows, strict=True)
        ]
        around = [a.tensor[i] for a, i in zip(anchors, rows, strict=True)]
        boxes = transform.apply_deltas(
            torch.cat(chosen, 1).flatten(0, 1), torch.cat(around, 1).flatten(0, 1)
        )
        counts = torch.tensor([x.shape[1] for x in rows])
        levels = torch.arange(len(rows)).repeat_interleave(counts)
        return cls(
            boxes.view(len(logits[0]), -1, 4), torch.cat(scores, 1), upload(levels, boxes.device)
        )

    def suppress(
        self,
        image_sizes: Sequence[tuple[int, int]],
        *,
        iou: float,
        topk: int,
        min_size: float,
        finite: bool,
    ) -> list[Instances]:
        """Clip to the images, leave out boxes without area, and suppress within each level.

        Args:
            image_sizes: height and width of each image.
            iou: IoU above which the lower of two boxes of a level is dropped.
            topk: largest number of proposals of an image.
            min_size: width and height that boxes have to exceed, in pixels.
            finite: whether boxes or scores that are not finite are an error; else they are left
                out.

        Returns:
            Proposals of each image with `proposal_boxes` and `objectness_logits`, best first.

        Raises:
            FloatingPointError: If any are not finite, as detectron2's.
        """
        known = self.boxes.isfinite().all(-1) & self.scores.isfinite()
        limits = upload(torch.tensor([[w, h, w, h] for h, w in image_sizes]), known.device)
        boxes = torch.minimum(self.boxes.clamp(min=0), limits[:, None].to(self.boxes))
        kept = known & (boxes[..., 2:] - boxes[..., :2] > min_size).all(-1)
        # What is left out comes last and overlaps nothing. The host need not know how many.
        boxes = boxes.where(kept[..., None], 0.0)
        scores = self.scores.masked_fill(~kept, -torch.inf)
        best = [
            batched_nms(*image, self.levels, iou)[:topk]
            for image in zip(boxes, scores, strict=True)
        ]
        counts = [image[rows].sum() for image, rows in zip(kept, best, strict=True)]
        *counts, all_known = torch.stack([*counts, known.all()]).tolist()
        if finite and not all_known:
            raise FloatingPointError(
                "Predicted boxes or scores contain Inf/NaN. Training has diverged."
            )
        rows = [image[:count] for image, count in zip(best, counts, strict=True)]
        return [
            Instances(size, proposal_boxes=Boxes(b[i]), objectness_logits=s[i])
            for size, b, s, i in zip(image_sizes, boxes, scores, rows, strict=True)
        ]
