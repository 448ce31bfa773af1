"""Several views of each test image: the key `dataloader.test_augmentation` of a config."""

import copy
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.data.transforms import ResizeShortestEdge
from omegaconf import DictConfig, OmegaConf
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
    if _present(cfg, "test_augmentation") is None:
        mapper: Any = (cfg.dataloader.get("test") or {}).get("mapper") or {}
        resizing = mapper.get("augmentations") or [{}]
        side, longest = (resizing[0].get(key) for key in ("short_edge_length", "max_size"))
        is_plain = len(resizing) == 1 and target_of(resizing[0]) is ResizeShortestEdge
        if not (is_plain and isinstance(side, int) and isinstance(longest, int)):
            raise InputError(
                "test.augmentation needs a dataloader.test.mapper whose only augmentation is "
                "ResizeShortestEdge with one short_edge_length and max_size."
            )
        node = _common("test_augmentation")
        node.update(short_edge_length=side, max_size=longest)
        mapper.augmentations = []
        cfg.dataloader.test_augmentation = node
    if scales:
        cfg.dataloader.test_augmentation.scales = list(scales)


def set_tiles(cfg: DictConfig, tile: int | None, overlap: float | None) -> None:
    """Let tests look at tiles of each image, or change the tiles of a config that does.

    The detector of `configs/common/test_augmentation.py` takes over the resizing of the mapper of
    the test images.

    Args:
        cfg: config, changed in place.
        tile: side of the tiles in pixels of the image; None leaves it.
        overlap: part of a tile that neighbors share; None leaves it.

    Raises:
        InputError: there is no mapper of test images, no side of the tiles, or the config has
            test-time augmentation.
    """
    if tile is None and overlap is None:
        return
    node = _present(cfg, "test_tiles")
    if node is None:
        mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
        if tile is None or mapper is None:
            missing = "test.tile, their side" if tile is None else "a dataloader.test.mapper"
            raise InputError(f"Detection in tiles needs {missing}.")
        node = _common("test_tiles")
        node.augmentations = mapper.augmentations
        mapper.augmentations = []
    node.update({k: v for k, v in (("tile", tile), ("overlap", overlap)) if v is not None})
    cfg.dataloader.test_augmentation = node


def with_test_augmentation(model: nn.Module, cfg: DictConfig) -> nn.Module:
    """Return a model for tests: with the views or tiles of its config, or the model itself."""
    node = copy.deepcopy(cfg.dataloader.get("test_augmentation"))
    if node is None:
        return model
    node.model = model
    return instantiate(node)


def _common(name: str) -> DictConfig:
    """Return a node of `configs/common/test_augmentation.py`."""
    return LazyConfig.load(str(root() / "configs" / "common" / "test_augmentation.py"))[name]


def _present(cfg: DictConfig, name: str) -> DictConfig | None:
    """Return the node of a config if it is of the kind of the named one, None without a node."""
    node = cfg.dataloader.get("test_augmentation")
    if node is not None and target_of(node) is not target_of(_common(name)):
        raise InputError("test.augmentation and test.tile cannot both be set: choose one.")
    return node
