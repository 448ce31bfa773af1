"""Test-time augmentation of a config, its key `dataloader.test_augmentation`."""

import copy
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import ResizeShortestEdge
from omegaconf import DictConfig
from torch import nn

from brloss_d2.errors import InputError
from brloss_d2.model_zoo.configs import root
from brloss_d2.utils.config_nodes import target_of


def set_test_augmentation(cfg: DictConfig, scales: Sequence[float]) -> None:
    """Add test-time augmentation to a config, or change its scales.

    The mapper of the test images leaves resizing to the augmentation, so that it happens once.

    Args:
        cfg: config, changed in place.
        scales: factors of the size of the test images; empty for those of
            `configs/common/test_augmentation.py`.

    Raises:
        InputError: the test images are not resized by one `ResizeShortestEdge` to one size.
    """
    if cfg.dataloader.get("test_augmentation") is None:
        mapper: Any = (cfg.dataloader.get("test") or {}).get("mapper") or {}
        resizing = mapper.get("augmentations") or [{}]
        side, longest = (resizing[0].get(key) for key in ("short_edge_length", "max_size"))
        is_plain = len(resizing) == 1 and target_of(resizing[0]) is ResizeShortestEdge
        if not (is_plain and isinstance(side, int) and isinstance(longest, int)):
            raise InputError(
                "test.augmentation needs a dataloader.test.mapper whose only augmentation is "
                "ResizeShortestEdge with one short_edge_length and max_size."
            )
        file = root() / "configs" / "common" / "test_augmentation.py"
        node = LazyConfig.load(str(file)).test_augmentation
        node.update(short_edge_length=side, max_size=longest)
        mapper.augmentations = []
        cfg.dataloader.test_augmentation = node
    if scales:
        cfg.dataloader.test_augmentation.scales = list(scales)


def with_test_augmentation(model: nn.Module, cfg: DictConfig) -> nn.Module:
    """Return a model for tests: with the augmentation of its config, or the model itself."""
    node = copy.deepcopy(cfg.dataloader.get("test_augmentation"))
    if node is None:
        return model
    node.model = model
    return instantiate(node)
