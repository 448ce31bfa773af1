"""DR Loss: ranking of two distributions, with a true gradient."""

import math

import torch
from torch import Tensor

from brloss_d2.losses.base import (
    ConfiguredModule,
    at_least_float32,
    check_numbers,
    check_tensors,
    check_values,
)


def dr_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    positive_softness: float = 1.0,
    negative_softness: float = 0.1 / math.log(3.5),
    sharpness: float = 6.0,
    weight: float = 4.0,
    margin: float = 0.5,
) -> Tensor:
    """DR Loss, distributional ranking (Qian et al., CVPR 2020), of one pool.

    The mean score of the negatives, weighted towards the high ones, is to stay `margin` below that
    of the positives, weighted towards the low ones:
    `weight / sharpness * ln(1 + exp(sharpness * (negative - positive + margin)))`. The weights are
    soft-maxima of the scores over their softness, and have a gradient. O(M) time and memory.

    Args:
        logits: logits of any shape, M in all, floating point of any precision.
        labels: integers of the same shape: 1 positive, 0 negative, -1 ignored.
        positive_softness: softness of the weights of the positives, in scores, > 0.
        negative_softness: softness of the weights of the negatives, in scores, > 0.
        sharpness: sharpness of the logistic loss, > 0.
        weight: factor of the loss, >= 0.
        margin: distance of the means, in scores, >= 0.

    Returns:
        () loss, not divided by the number of positives. Without positives their mean is 1, without
        negatives theirs is 0.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> logits, labels = torch.tensor([1.25, -40.0]), torch.tensor([1, 0])
        >>> round(dr_loss(logits, labels).item(), 4)
        0.1156
    """
    check_numbers("> 0", positive_softness=positive_softness, negative_softness=negative_softness)
    check_numbers("> 0", sharpness=sharpness)
    check_numbers(">= 0", weight=weight, margin=margin)
    check_tensors(logits=logits, labels=labels)
    if logits.shape != labels.shape or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating point and have the shape of labels {tuple(labels.shape)}, "
            f"got {logits.dtype} {tuple(logits.shape)}"
        )
    check_values("labels", labels, -1, 1, "1 (positive), 0 (negative) or -1 (ignored)")
    scores, labels = at_least_float32(logits).flatten().sigmoid(), labels.flatten()
    positive = _soft_mean(scores, labels == 1, -1 / positive_softness)
    positive = positive + ~(labels == 1).any()
    negative = _soft_mean(scores, labels == 0, 1 / negative_softness)
    inverted = sharpness * (negative - positive + margin)
    return weight / sharpness * torch.logaddexp(inverted, torch.zeros_like(inverted))


def _soft_mean(scores: Tensor, kept: Tensor, slope: float) -> Tensor:
    """Return the () mean of scores with weights `softmax(slope * scores)`; 0 if none is kept."""
    exponents = (slope * scores).masked_fill(~kept, torch.finfo(scores.dtype).min)
    return (exponents.softmax(0) * kept * scores).sum()


class DRLoss(ConfiguredModule):
    """Module form of `dr_loss`, in `SigmoidCriterion` over the images of a pool.

    Negatives of score 0 count too, so that the loss depends on the number of rows and the size of
    the pool. The paper ranks within an image; the published code leaves the scope open.

    Args:
        positive_softness: softness of the weights of the positives, in scores, > 0.
        negative_softness: softness of the weights of the negatives, in scores, > 0.
        sharpness: sharpness of the logistic loss, > 0.
        weight: factor of the loss, >= 0; it is the balance against the box loss.
        margin: distance of the means, in scores, >= 0.
        images_per_pool: number of images that are ranked together, >= 1; the losses of the pools of
            a batch are averaged. None is the whole batch.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> DRLoss()(torch.tensor([[1.25, -40.0]]), torch.tensor([[1, 0]]))
        tensor(0.1156)
    """

    def __init__(
        self,
        *,
        positive_softness: float = 1.0,
        negative_softness: float = 0.1 / math.log(3.5),
        sharpness: float = 6.0,
        weight: float = 4.0,
        margin: float = 0.5,
        images_per_pool: int | None = 1,
    ):
        super().__init__()
        check_numbers("> 0", positive_softness=positive_softness, sharpness=sharpness)
        check_numbers("> 0", negative_softness=negative_softness)
        check_numbers(">= 0", weight=weight, margin=margin)
        if images_per_pool is not None:
            check_numbers(">= 1", images_per_pool=images_per_pool)
        self.positive_softness, self.negative_softness = positive_softness, negative_softness
        self.sharpness, self.weight, self.margin = sharpness, weight, margin
        self.images_per_pool = images_per_pool

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the () loss of one pool; arguments as in `dr_loss`."""
        return dr_loss(
            logits,
            labels,
            positive_softness=self.positive_softness,
            negative_softness=self.negative_softness,
            sharpness=self.sharpness,
            weight=self.weight,
            margin=self.margin,
        )
