"""Repeat factors of images with rare categories (Gupta et al., "LVIS", CVPR 2019, appendix B.2).

`RepeatFactorTrainingSampler(repeat_factors)` rounds fractional factors at random in each epoch:
that is detectron2's rule, with its own `repeat_factors_from_category_frequency`. It takes whole
factors as they are: that is the rule of the published ranking-loss models.
"""

from typing import Any

from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch import Tensor


def ceil_repeat_factors(dataset_dicts: list[dict[str, Any]], repeat_thresh: float) -> Tensor:
    """Return repeat factors rounded up, so that each image with a rare category is repeated.

    Args:
        dataset_dicts: images in detectron2's format; the frequency f(c) of a category is its
            share of these images.
        repeat_thresh: frequency t below which a category is repeated, 0..1.

    Returns:
        Whole numbers >= 1, (N,): the ceiling of max(1, sqrt(t / f(c))) over the categories of each
        image.
    """
    frequencies = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    return frequencies(dataset_dicts, repeat_thresh).ceil()
