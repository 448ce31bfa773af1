"""Images of a custom dataset, looked at before training, and notes that need them or the config."""

from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from brloss_d2.data.checks import CocoSummary
from brloss_d2.data.custom import CustomDataSummary
from brloss_d2.data.image_files import image_notes, look_at_images, same_content
from brloss_d2.utils.config_nodes import walk_nodes

_LIMITS = ("max_detections", "test_topk_per_image")  # detections of a model per image


def check_custom_images(data: CustomDataSummary, *, training: bool) -> CustomDataSummary:
    """Read all images of a custom dataset through.

    Args:
        data: contents of the dataset.
        training: whether the training images are needed, if there are any.

    Returns:
        The contents, with notes about the images.

    Raises:
        InputError: images cannot be used; the message names the first ones.
    """
    given = {"val": data.val, "train": data.train if training else None}
    splits = {name: split for name, split in given.items() if split is not None}
    facts = {
        name: look_at_images(split.image_sizes, key=f"data.{name}")
        for name, split in splits.items()
    }
    notes = {name: image_notes(seen) for name, seen in facts.items()}
    if len(splits) == len(given) and (shared := same_content(facts["val"], facts["train"])):
        notes["val"].append(
            f"{len(shared)} of {len(facts['val'])} images are in data.train too: AP flatters the "
            "model"
        )
    changes: dict[str, Any] = {name: _noted(split, notes[name]) for name, split in splits.items()}
    return replace(data, **changes)


def note_detection_limits(data: CustomDataSummary, cfg: DictConfig) -> CustomDataSummary:
    """Return contents with a note if an image has more objects than detections count.

    Args:
        data: contents of the dataset.
        cfg: effective config.
    """
    if data.val is None:
        return data
    limits = {
        node._get_full_key(key): node[key]
        for node in walk_nodes(cfg.model)
        for key in _LIMITS
        if key in node
    }
    if (evaluator := cfg.dataloader.get("evaluator")) is not None:
        name = "max_dets_per_image"
        limits[f"dataloader.evaluator.{name}"] = evaluator.get(name) or 100
    most = data.val.most_objects
    low = [key for key, limit in limits.items() if isinstance(limit, int) and limit < most]
    if not low:
        return data
    note = f"up to {most} objects in an image, more than detections count; raise {', '.join(low)}"
    return replace(data, val=_noted(data.val, [note]))


def _noted(split: CocoSummary, notes: list[str]) -> CocoSummary:
    return replace(split, notes=(*split.notes, *notes))
