"""Custom datasets from the command line: `data.train=FILE.json data.train_images=FOLDER ...`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from brloss_d2.data.checks import CocoSummary, check_coco_json
from brloss_d2.data.coco import load_coco_dataset, register_coco_metadata
from brloss_d2.data.coco_file import DROPPED
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import walk_nodes
from brloss_d2.utils.suggest import did_you_mean

_PREFIX = "data."
_SHOWN_IF_ANY = [f"boxes {kind}, dropped" for kind in DROPPED[1:]]  # rows of the table


@dataclass(frozen=True)
class CustomData:
    """The `data.*` keys of a command line.

    Attributes:
        train: path of the training annotations in COCO format.
        train_images: folder of the training images; the folder of `train` by default.
        val: path of the validation annotations in COCO format.
        val_images: folder of the validation images; the folder of `val` by default.
    """

    train: str | None = None
    train_images: str | None = None
    val: str | None = None
    val_images: str | None = None

    @classmethod
    def from_overrides(cls, overrides: Sequence[str]) -> tuple["CustomData", list[str]]:
        """Split `key=value` overrides into the `data.*` keys and all others.

        Raises:
            InputError: a `data.*` key is unknown, has no value or is given twice.
        """
        known = [field.name for field in fields(cls)]
        values: dict[str, str] = {}
        others = []
        for override in overrides:
            if not override.startswith(_PREFIX):
                others.append(override)
                continue
            key, _, value = override[len(_PREFIX) :].partition("=")
            if key not in known:
                hint = did_you_mean(key, known, count=1, cutoff=0.3, prefix=_PREFIX)
                keys = ", ".join(_PREFIX + name for name in known)
                raise InputError(f"There is no key {_PREFIX}{key}.{hint} Known keys: {keys}.")
            if not value:
                raise InputError(f"{_PREFIX}{key} has no value: expected {_PREFIX}{key}=PATH.")
            if key in values:
                raise InputError(f"{_PREFIX}{key} is given twice.")
            values[key] = os.path.abspath(os.path.expanduser(value))  # no shell expands data.x=~
        return cls(**values), others

    def __bool__(self) -> bool:
        """Whether any of the keys is given."""
        return any(getattr(self, field.name) is not None for field in fields(self))


@dataclass(frozen=True)
class CustomDataSummary:
    """Contents of the files of a `CustomData`; `str()` returns a table for the log.

    Attributes:
        train: contents of the training data; None for evaluation only.
        val: contents of the validation data.
    """

    train: CocoSummary | None
    val: CocoSummary

    @property
    def num_classes(self) -> int:
        """Number of classes, at least 1."""
        return self.val.num_classes

    def __str__(self) -> str:
        splits = {"train": self.train, "val": self.val}
        columns = {name: _counts(split) for name, split in splits.items() if split is not None}
        rows = [
            [label, *(column[label] for column in columns.values())] for label in _counts(self.val)
        ]
        rows = [row for row in rows if any(row[1:]) or row[0] not in _SHOWN_IF_ANY]
        lines = [tabulate(rows, headers=["", *columns])]
        if self.train is None:
            lines.append("Note: data.train is not given: evaluation only.")
        for kind, count in self.val.dropped.items():
            if count:
                lines.append(
                    f"Note: the {count} boxes {kind}, which nothing can match, count as missed "
                    "objects in the evaluation of data.val."
                )
        notes: dict[str, list[str]] = {}
        for name, split in splits.items():
            for note in split.notes if split is not None else ():
                notes.setdefault(note, []).append(f"data.{name}")
        lines += [f"Note: {' and '.join(keys)}: {note}." for note, keys in notes.items()]
        return "\n".join(lines)


def apply_custom_data(cfg: DictConfig, data: CustomData) -> CustomDataSummary:
    """Check custom data and make a config use it: loaders, evaluator and numbers of classes.

    Nothing is changed before all checks have passed. `data.val` alone is enough for evaluation.

    Args:
        cfg: config with the keys `model` and `dataloader`, changed in place. Every `num_classes`
            below `cfg.model` that is not an interpolation gets the number of the JSON.
        data: files of the dataset.

    Returns:
        Counts for the log.

    Raises:
        InputError: a file is missing or malformed, train and val differ in their categories, or
            the config learns masks and the files have none.
    """
    masks = bool((cfg.dataloader.train.get("mapper") or {}).get("use_instance_mask"))
    summary = _check(data, masks=masks)
    nodes = [node for node in walk_nodes(cfg.model) if "num_classes" in node]
    # An interpolation follows the number it refers to; writing into it would cut the link.
    owners = [node for node in nodes if not OmegaConf.is_interpolation(node, "num_classes")]
    if not owners:
        raise InputError(
            "The config has no num_classes below `model`: it cannot use a custom dataset."
        )
    for node in owners:
        node.num_classes = summary.num_classes
    cfg.dataloader.test.dataset = _dataset_node("custom_val", summary.val, masks=masks)
    if summary.train is None:
        cfg.dataloader.train.dataset = L(refuse_missing_dataset)(key="data.train")
    else:
        cfg.dataloader.train.dataset = _dataset_node("custom_train", summary.train, masks=masks)
    return summary


def refuse_missing_dataset(key: str) -> None:
    """Stand in for a dataset that was not given.

    Raises:
        InputError: always.
    """
    raise InputError(f"{key} is not given: training needs {key}=FILE.json {key}_images=FOLDER.")


def _check(data: CustomData, *, masks: bool) -> CustomDataSummary:
    train = _check_split(data.train, data.train_images, "data.train", masks=masks)
    val = _check_split(data.val, data.val_images, "data.val", masks=masks)
    if val is None:
        raise InputError(
            "data.val is not given: evaluation needs data.val=FILE.json data.val_images=FOLDER."
        )
    if train is not None and train.categories != val.categories:
        details = ""
        pairs = (("data.train", train, val), ("data.val", val, train))
        for name, own, other in pairs:
            difference = sorted(own.categories.items() - other.categories.items())
            labels = ", ".join(f"{id_} {label!r}" for id_, label in difference) or "none"
            details += f"\n  only in {name}: {labels}"
        raise InputError(
            f"The categories of data.train and data.val differ (id and name):{details}"
        )
    for key, split, purpose in (("train", train, "learn from"), ("val", val, "find")):
        if split is not None and not split.boxes:
            others = [f"{count} {kind}" for kind, count in split.dropped.items() if count]
            others += [f"{split.crowd} of crowds"] if split.crowd else []
            found = f" (only {', '.join(others)})" if others else ""
            raise InputError(f"data.{key}={split.json_file}: it has no boxes to {purpose}{found}.")
    return CustomDataSummary(train=train, val=val)


def _check_split(
    json_file: str | None, image_root: str | None, key: str, *, masks: bool
) -> CocoSummary | None:
    if json_file is not None:
        image_root = image_root or os.path.dirname(os.path.abspath(json_file))
        return check_coco_json(json_file, image_root, key=key, masks=masks)
    if image_root is not None:
        raise InputError(f"{key}_images is given without {key}=FILE.json.")
    return None


def _dataset_node(name: str, summary: CocoSummary, *, masks: bool) -> DictConfig:
    # Registered here too, so that the evaluator does not depend on the loader being built first.
    register_coco_metadata(name, summary.json_file, summary.image_root, masks=masks)
    return L(load_coco_dataset)(
        names=name, json_file=summary.json_file, image_root=summary.image_root, masks=masks
    )


def _counts(split: CocoSummary) -> dict[str, int]:
    return {
        **{
            f"boxes of {name} (id {id_})": split.objects[id_]
            for id_, name in split.categories.items()
        },
        "boxes": split.boxes,
        **{f"boxes {kind}, dropped": count for kind, count in split.dropped.items()},
        "crowd boxes, ignored": split.crowd,
        "images": split.images,
        "images without objects": split.images_without_objects,
    }
