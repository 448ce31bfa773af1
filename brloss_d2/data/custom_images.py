"""Images of a custom dataset, looked at before training, and notes that need them or the config."""

from dataclasses import replace

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
    train, val = data.train, data.val
    seen = look_at_images(val.image_sizes if val else {}, key="data.val")
    notes = image_notes(seen)
    if training and train is not None:
        learned = look_at_images(train.image_sizes, key="data.train")
        train = _noted(train, image_notes(learned))
        shared = len(same_content(seen, learned))
        if shared:
            notes.append(
                f"{shared} of {len(seen)} images are in data.train too: AP flatters the model"
            )
    return replace(data, train=train, val=val and _noted(val, notes))


def note_detection_limits(data: CustomDataSummary, cfg: DictConfig) -> CustomDataSummary:
    """Return contents with a note if an image has more objects than detections count.

    Args:
        data: contents of the dataset.
        cfg: effective config.
    """
    limits = {
        node._get_full_key(key): node[key]
        for node in walk_nodes(cfg.model)
        for key in _LIMITS
        if key in node
    }
    if (evaluator := cfg.dataloader.get("evaluator")) is not None:
        name = "max_dets_per_image"
        limits[f"dataloader.evaluator.{name}"] = evaluator.get(name) or 100
    if data.val is None:
        return data
    most = data.val.most_objects
    low = [key for key, limit in limits.items() if isinstance(limit, int) and limit < most]
    if not low:
        return data
    note = f"up to {most} objects in an image, more than detections count; raise {', '.join(low)}"
    return replace(data, val=_noted(data.val, [note]))


def _noted(split: CocoSummary, notes: list[str]) -> CocoSummary:
    return replace(split, notes=(*split.notes, *notes))
