import math

import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data.samplers import RepeatFactorTrainingSampler

from brloss_d2.data import ceil_repeat_factors


def images(*categories):
    return [{"annotations": [{"category_id": c} for c in ids]} for ids in categories]


# Category 0 is in 8 of 8 images, 1 in 2, 2 in 1.
DATASET = images({0}, {0}, {0}, {0}, {0}, {0, 1}, {0, 1}, {0, 2})


def test_factors_by_hand():
    """t = 1: max(1, sqrt(1 / f)) is 1, 2 and sqrt(8) = 2.83; the rarest category counts."""
    assert ceil_repeat_factors(DATASET, 1.0).tolist() == [1, 1, 1, 1, 1, 2, 2, 3]
    assert ceil_repeat_factors(DATASET, 0.01).tolist() == [1] * 8
    assert ceil_repeat_factors(images({0}, set()), 0.6).tolist() == [2, 1]


def test_a_category_slightly_below_the_threshold_is_seen_twice():
    """The published rule has no factors between 1 and 2."""
    assert ceil_repeat_factors(DATASET, 0.26).tolist() == [1, 1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("rule", ["ceil", "stochastic"])
def test_an_epoch_of_the_named_rules(rule):
    """Whole factors give the same number of images in every epoch, fractions on average."""
    file = f"{__file__.rsplit('/tests/', 1)[0]}/configs/common/data/lvis_v1.py"
    node = LazyConfig.load(file)[f"repeat_{rule}"]
    assert node.repeat_factors.repeat_thresh == 1e-3
    node.repeat_factors.update(dataset_dicts=DATASET, repeat_thresh=1.0)
    sampler = instantiate(node)
    assert isinstance(sampler, RepeatFactorTrainingSampler)
    epochs = [sampler._get_epoch_indices(_generator(seed)).tolist() for seed in range(200)]
    rare = [epoch.count(7) for epoch in epochs]
    if rule == "ceil":
        assert set(rare) == {3} and {len(epoch) for epoch in epochs} == {12}
    else:
        assert set(rare) == {2, 3}
        assert sum(rare) / len(rare) == pytest.approx(math.sqrt(8), abs=0.1)


def _generator(seed):
    import torch

    return torch.Generator().manual_seed(seed)
