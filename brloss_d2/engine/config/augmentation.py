"""Presets of augmentation, `data.augment`: what they change in the mapper of a config."""

from typing import Any

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf

from brloss_d2.data import BoxAwareMapper, DetectionMapper, MixingMapper, PhotometricDistortion
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import learns_masks, target_of
from brloss_d2.utils.suggest import did_you_mean

PRESETS = ("none", "light", "strong", "aerial")
_MAPPERS = (DetectionMapper, BoxAwareMapper, MixingMapper)
_CANVAS = 1.25  # side of the square of large-scale jitter, in short sides of the recipe
_MIXED = 0.5  # probability of a mosaic, and of pasted objects


def set_augmentation(cfg: DictConfig, name: str) -> None:
    """Replace the augmentation of the training images of a config; its sizes stay.

    * none: resizing as in the recipe
    * light: and a horizontal flip, changes of brightness, contrast and saturation
    * strong: large-scale jitter, a horizontal flip, the colors of SSD, mosaics, and with masks
      objects pasted from other images, and boxes around what is left of the masks
    * aerial: flips in both directions, quarter turns, a slight change of scale, colors as in light

    Args:
        cfg: config with the key `dataloader`, changed in place.
        name: one of `PRESETS`.

    Raises:
        InputError: there is no such preset, or the config resizes its images in a way of its own.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise InputError(f"data.augment={name}: expected {known}.{did_you_mean(name, PRESETS)}")
    mapper = OmegaConf.select(cfg, "dataloader.train.mapper")
    steps = list(mapper.get("augmentations") or ()) if target_of(mapper) in _MAPPERS else []
    resizes = [step for step in steps if "short_edge_length" in step or "shape" in step]
    if len(resizes) != 1:
        raise InputError(
            f"data.augment={name}: dataloader.train.mapper of this config resizes images in a way "
            "of its own, which a preset cannot keep."
        )
    (resize,) = resizes
    colors = [
        L(change)(intensity_min=0.8, intensity_max=1.2)
        for change in (T.RandomBrightness, T.RandomContrast, T.RandomSaturation)
    ]
    flip = L(T.RandomFlip)(horizontal=True)
    mapper.augmentations = {
        "none": [resize],
        "light": [*colors, resize, flip],
        "strong": [
            L(PhotometricDistortion)(img_format=mapper.image_format),
            *_jitter(resize, 0.5, 2.0),
            flip,
        ],
        "aerial": [
            *colors,
            flip,
            L(T.RandomFlip)(horizontal=False, vertical=True),
            L(T.RandomRotation)(angle=[0, 90, 180, 270], sample_style="choice"),
            *_jitter(resize, 0.8, 1.25),
        ],
    }[name]
    if name == "strong":
        mapper.pop("min_side", None)  # of a BoxAwareMapper
        mapper._target_ = MixingMapper
        mapper.update(names="${dataloader.train.dataset.names}", mosaic=_MIXED)
        if learns_masks(cfg):
            mapper.update(copy_paste=_MIXED, instance_mask_format="bitmask")
    if name in ("strong", "aerial") and learns_masks(cfg):  # which cut masks
        mapper.recompute_boxes = True


def _jitter(resize: DictConfig, least: float, most: float) -> list[Any]:
    """Return large-scale jitter (Ghiasi et al., CVPR 2021) for the sizes of a recipe."""
    if "shape" in resize:  # for a model that needs images of one size
        height, width = resize.shape
    else:
        sides = resize.short_edge_length
        side = max(sides) if not isinstance(sides, int) else sides
        height = width = round(_CANVAS * side)
    return [
        L(T.ResizeScale)(min_scale=least, max_scale=most, target_height=height, target_width=width),
        # Masks are padded with what is not the object; detectron2's 255 would be the object.
        L(T.FixedSizeCrop)(crop_size=[height, width], pad="shape" in resize, seg_pad_value=0),
    ]
