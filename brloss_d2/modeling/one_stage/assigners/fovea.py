"""Assignment of FoveaBox."""

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor

from brloss_d2.modeling.one_stage.assigners.base import (
    BACKGROUND,
    AnchorPredictions,
    Assigner,
    LevelAnchors,
    background,
)


class FoveaAssigner(Assigner):
    """Assign the cells in the middle of an object to it (Kong et al., TIP 2020).

    An object belongs to the levels whose range contains its scale sqrt(w h), usually two. There the
    cells whose center is in the middle `sigma` of the object's width and height are positive; of
    several objects the smallest gets a cell. An object whose middle contains no center has no
    positive on that level, unless the middle lies outside all centers of the map: then the nearest
    cell counts.

    Args:
        scale_ranges: smallest and largest scale of each level in pixels, both included.
        sigma: share of width and height that is positive, in (0, 1].

    Raises:
        ValueError: If `sigma` is not in (0, 1].
    """

    def __init__(self, *, scale_ranges: Sequence[tuple[float, float]], sigma: float = 0.4):
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma must be in (0, 1], got {sigma}")
        self.scale_ranges = [tuple(r) for r in scale_ranges]
        self.sigma = sigma

    def __call__(
        self,
        anchors: LevelAnchors,
        objects: Instances,
        predictions: AnchorPredictions | None = None,
    ) -> Tensor:
        """Assign R anchors; see `Assigner`."""
        if len(objects) == 0:
            return background(anchors)
        # Stable, so that of two objects of one size the first gets the cell.
        order = objects.gt_boxes.area().argsort(stable=True)
        boxes = objects.gt_boxes.tensor[order]
        sides = boxes[:, 2:] - boxes[:, :2]
        centers = (boxes[:, 2:] + boxes[:, :2]) / 2
        scale = sides.prod(1).sqrt()
        levels = zip(anchors.centers.split(list(anchors.counts)), self.scale_ranges, strict=True)
        assigned = []
        for points, (low, high) in levels:
            if len(points) == 0:
                continue
            # Bounds outside the map move to its first or last cell.
            bounds = points.amin(0), points.amax(0)
            start = (centers - self.sigma / 2 * sides).clamp(*bounds)
            end = (centers + self.sigma / 2 * sides).clamp(*bounds)
            inside = ((points >= start[:, None]) & (points <= end[:, None])).all(-1)
            covers = inside & ((scale >= low) & (scale <= high))[:, None]
            first = covers.to(torch.int8).argmax(0)  # the first of equal values
            assigned.append(torch.where(covers.any(0), order[first], BACKGROUND))
        return torch.cat(assigned) if assigned else background(anchors)
