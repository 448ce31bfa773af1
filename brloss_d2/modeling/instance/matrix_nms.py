"""Suppression of masks without loops: points-NMS and Matrix NMS of SOLOv2."""

import torch
import torch.nn.functional as F
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers


def points_nms(scores: Tensor) -> Tensor:
    """Set scores to 0 that are below those of the cells to the left and above.

    Args:
        scores: (..., G, G) scores of cells, >= 0.

    Returns:
        Scores of which each is the largest of itself, its left, its upper and its upper left
        neighbor, or 0.
    """
    largest = F.max_pool2d(scores.flatten(0, -3), 2, stride=1, padding=1)[:, :-1, :-1]
    return scores * (scores == largest.view_as(scores))


class MatrixNMS(ConfiguredModule):
    """Lower the scores of masks that better ones of their class cover.

    Matrix NMS (Wang et al., NeurIPS 2020). The factor of a mask is the least over all better ones
    of f(their IoU) / f(c), where c is the largest IoU of the better mask with one better still.

    Args:
        kernel: f, "gaussian" for `exp(-sigma IoU^2)` or "linear" for `1 - IoU`.
        sigma: steepness of the gaussian, > 0.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> masks = torch.tensor([[[1, 1, 0]], [[0, 1, 1]]]).bool()
        >>> MatrixNMS(kernel="linear")(masks, torch.tensor([0, 0]), torch.tensor([0.9, 0.6]))
        tensor([0.9000, 0.4000])
    """

    def __init__(self, *, kernel: str = "gaussian", sigma: float = 2.0):
        super().__init__()
        if kernel not in ("gaussian", "linear"):
            raise ValueError(f"kernel must be one of ('gaussian', 'linear'), got {kernel!r}")
        check_numbers("> 0", sigma=sigma)
        self.kernel, self.sigma = kernel, sigma

    def forward(self, masks: Tensor, classes: Tensor, scores: Tensor) -> Tensor:
        """Lower scores.

        Args:
            masks: (D, H, W) bool, by descending score, none of them empty.
            classes: (D,) class of each mask.
            scores: (D,) scores.

        Returns:
            (D,) scores.
        """
        if len(scores) == 0:
            return scores
        flat = masks.flatten(1).float()
        overlap, areas = flat @ flat.T, flat.sum(1)
        iou = overlap / (areas[:, None] + areas - overlap)
        iou = (iou * (classes[:, None] == classes)).triu(diagonal=1)
        covered = iou.amax(0)[:, None]
        if self.kernel == "gaussian":
            factors = torch.exp(self.sigma * (covered.square() - iou.square()))
        else:
            # A copy of a better mask covers as that mask does.
            factors = (1 - iou) / (1 - covered).clamp(min=torch.finfo(iou.dtype).tiny)
        return scores * factors.amin(0)
