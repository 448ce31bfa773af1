"""How often an image with rare categories is seen in an epoch (LVIS paper, appendix B.2).

`RepeatFactorTrainingSampler(repeat_factors)` rounds fractional factors at random, anew in each
epoch: that is detectron2's rule, with its own `repeat_factors_from_category_frequency`. Whole
factors it takes as they are: that is the rule of the published ranking-loss models.
"""

from typing import Any

from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch import Tensor


def ceil_repeat_factors(dataset_dicts: list[dict[str, Any]], repeat_thresh: float) -> Tensor:
    """Return repeat factors rounded up: no image with a rare category is ever left out.

    Args:
        dataset_dicts: images in detectron2's format; the frequency f(c) of a category is the
            share of these that have it.
        repeat_thresh: t, the frequency below which a category is repeated, in 0..1.

    Returns:
        (N,), whole numbers >= 1: the ceiling of max over an image's categories of
        max(1, sqrt(t / f(c))).
    """
    frequencies = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    return frequencies(dataset_dicts, repeat_thresh).ceil()
