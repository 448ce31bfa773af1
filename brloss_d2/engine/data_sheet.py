"""A look at the training data as a model gets them, before it is trained."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import BitMasks, Instances, PolygonMasks
from omegaconf import DictConfig
from torch import Tensor

from brloss_d2.engine.randomness import seeded
from brloss_d2.errors import InputError
from brloss_d2.plotting.data_sheet import DataSheet, LabeledBoxes
from brloss_d2.utils.config_nodes import target_of, walk_nodes

_SMALL = 0.2  # share of objects below the smallest anchor from which on a note says so
_MEASURED = 40  # number of images whose objects are measured


def can_be_shown(cfg: DictConfig) -> bool:
    """Return whether the training data of a config have a mapper of detectron2's kind.

    Args:
        cfg: config with its data.
    """
    target = target_of(cfg.dataloader.train.get("mapper"))
    return inspect.isclass(target) and issubclass(target, DatasetMapper)


def look_at_data(cfg: DictConfig, class_names: Sequence[str], *, images: int = 8) -> DataSheet:
    """Take a sample of the training images, as the loader would give them to the model.

    The random numbers of the process stay as they are.

    Args:
        cfg: config with its data.
        class_names: names of the classes; none if they are unknown.
        images: number of images to draw. Some more are measured.

    Raises:
        InputError: the mapper is not of detectron2's kind, or an image cannot be read.
    """
    loader = cfg.dataloader.train
    if not can_be_shown(cfg):
        raise InputError("dataloader.train.mapper is no DatasetMapper: what it gives is unknown.")
    with seeded((0,)):
        records = instantiate(loader.dataset)
        mapper = instantiate(loader.mapper)
        order = np.random.permutation(len(records))
        chosen = [records[i] for i in order[: max(images, _MEASURED)]]
        samples = [mapper(record) for record in chosen]
    objects = (a for record in records for a in record.get("annotations", ()))
    labels = [a["category_id"] for a in objects if not a.get("iscrowd", 0)]
    known = len(class_names) or max(labels, default=-1) + 1
    names = list(class_names) or [f"class {label}" for label in range(known)]
    counts = np.bincount(np.array(labels, dtype=int), minlength=known)
    bgr = loader.mapper.get("image_format") == "BGR"
    areas = [sample["instances"].gt_boxes.area() for sample in samples]
    return DataSheet(
        images=[_drawable(sample, bgr=bgr) for sample in samples[:images]],
        class_names=names,
        counts=dict(zip(names, counts.tolist(), strict=True)),
        sizes=torch.cat(areas).sqrt().numpy() if areas else np.zeros(0),
        anchors=sorted(set(anchor_sizes(cfg.model))),
    )


def note_on_sizes(sheet: DataSheet) -> str:
    """Return a sentence if many objects are smaller than all anchors; "" if not.

    Args:
        sheet: sample of the training data.
    """
    if not len(sheet.anchors) or not len(sheet.sizes):
        return ""
    share = float((sheet.sizes < min(sheet.anchors)).mean())
    if share <= _SMALL:
        return ""
    return (
        f"{share:.0%} of the objects are smaller than the smallest anchor "
        f"({min(sheet.anchors):.0f} pixels) after resizing: they find few matches. Raise "
        "data.short_side, cut the images into tiles, or take smaller anchors."
    )


def anchor_sizes(model: DictConfig) -> Iterator[float]:
    """Yield the sides of all anchors in the config of a model, in pixels.

    Args:
        model: config of a model; without anchor generators there are none.
    """
    for node in walk_nodes(model):
        target = target_of(node)
        if inspect.isclass(target) and issubclass(target, DefaultAnchorGenerator):
            for level in node.sizes:
                yield from map(float, [level] if isinstance(level, int | float) else level)


def _drawable(sample: dict[str, Any], *, bgr: bool) -> tuple[np.ndarray, LabeledBoxes]:
    """Return the image of a mapped record as RGB, and its objects."""
    image: Tensor = sample["image"]
    pixels = (image.flip(0) if bgr else image).permute(1, 2, 0).clamp(0, 255).byte().numpy()
    objects: Instances = sample["instances"]
    masks = objects.get("gt_masks") if objects.has("gt_masks") else None
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *objects.image_size)
    return pixels, LabeledBoxes(
        objects.gt_boxes.tensor.numpy(),
        objects.gt_classes.numpy(),
        masks=None if masks is None else masks.tensor.numpy(),
    )
