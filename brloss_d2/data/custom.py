"""Custom datasets from the command line: `data.train=FILE.json data.train_images=FOLDER ...`."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from brloss_d2.data.checks import CocoSummary, check_coco_json
from brloss_d2.data.coco import load_coco_dataset, register_coco_metadata
from brloss_d2.data.coco_file import DROPPED, only_files, read_json
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import learns_masks, walk_nodes
from brloss_d2.utils.files import write_text
from brloss_d2.utils.suggest import did_you_mean
from brloss_d2.utils.text import counted, first_few, printable

_PREFIX = "data."
_SHOWN_IF_ANY = [f"boxes {kind}, dropped" for kind in DROPPED[1:]]  # rows of the table
_DETECTION_LIMITS = ("max_detections", "test_topk_per_image")  # per image, of a model
# Folder below train.output_dir for the two files of data.val_fraction.
_SPLIT_FOLDER = "split"


def _key(text: str) -> Any:
    """Return a dataclass field that is None by default and knows its description."""
    return field(default=None, metadata={"text": text})


@dataclass(frozen=True)
class CustomData:
    """The `data.*` keys of a command line.

    Attributes:
        train: path of the training annotations in COCO format.
        train_images: folder of the training images; the folder of `train` by default.
        val: path of the validation annotations in COCO format.
        val_images: folder of the validation images; the folder of `val` by default.
        val_fraction: part of the training images to set aside for validation, in (0, 1).
    """

    train: str | None = _key("training annotations in COCO format; without data.val no evaluation")
    train_images: str | None = _key("folder of the training images; that of data.train by default")
    val: str | None = _key("validation annotations in COCO format")
    val_images: str | None = _key("folder of the validation images; that of data.val by default")
    val_fraction: float | None = _key("part of data.train to evaluate on instead of data.val")

    @classmethod
    def from_overrides(
        cls, overrides: Sequence[str], others_known: Sequence[str] = ()
    ) -> tuple["CustomData", list[str]]:
        """Split `key=value` overrides into the `data.*` keys and all others.

        Args:
            overrides: `key=value` of a command line.
            others_known: further `data.*` keys, which messages suggest too.

        Raises:
            InputError: a `data.*` key is unknown, has no value or is given twice.
        """
        own = [key.name for key in fields(cls)]
        known = [*own, *(key.removeprefix(_PREFIX) for key in others_known)]
        values: dict[str, Any] = {}
        others = []
        for override in overrides:
            if not override.startswith(_PREFIX):
                others.append(override)
                continue
            key, _, value = override[len(_PREFIX) :].partition("=")
            if key not in own:
                hint = did_you_mean(key, known, count=1, cutoff=0.3, prefix=_PREFIX)
                keys = ", ".join(_PREFIX + name for name in known)
                raise InputError(f"There is no key {_PREFIX}{key}.{hint} Known keys: {keys}.")
            if not value:
                raise InputError(f"{_PREFIX}{key} has no value: expected {_PREFIX}{key}=PATH.")
            if key in values:
                raise InputError(f"{_PREFIX}{key} is given twice.")
            if key == "val_fraction":
                with suppress(ValueError):
                    values[key] = float(value)
                if not 0 < values.get(key, 0) < 1:
                    raise InputError(f"{override}: expected a number between 0 and 1.")
            elif "://" in value:
                raise InputError(f"{override}: expected a path; download the file first.")
            else:
                # No shell expands data.x=~.
                values[key] = os.path.abspath(os.path.expanduser(value))
        if "val_fraction" in values and ("train" not in values or "val" in values):
            raise InputError("data.val_fraction splits data.train: give it, and no data.val.")
        return cls(**values), others

    def __bool__(self) -> bool:
        """Whether any of the keys is given."""
        return any(getattr(self, field.name) is not None for field in fields(self))


@dataclass(frozen=True)
class CustomDataSummary:
    """Contents of the files of a `CustomData`; `str()` returns a table for the log.

    Attributes:
        train: contents of the training data; None for evaluation only.
        val: contents of the validation data; None for training without evaluation.
        to_write: path -> text of the files that `write_split` writes.
    """

    train: CocoSummary | None
    val: CocoSummary | None
    to_write: Mapping[str, str] = field(default_factory=dict)

    @property
    def categories(self) -> dict[int, str]:
        """Names of the classes by their ids, in the order of the ids."""
        return list(self._splits().values())[-1].categories

    @property
    def num_classes(self) -> int:
        """Number of classes, at least 1."""
        return len(self.categories)

    def write_split(self) -> None:
        """Write the files of `data.val_fraction`, if it is given; the same in every process.

        Raises:
            InputError: the files cannot be written.
        """
        for path, text in self.to_write.items():
            write_text(path, text)

    def __str__(self) -> str:
        return self.table()

    def table(self, most_classes: int | None = None) -> str:
        """Return a table of at most 80 columns, with notes below it.

        Args:
            most_classes: largest number of classes to show, without other rows of zeros; None for
                everything.
        """
        present = self._splits()
        rows: list[list[str | int]] = [
            [
                f"boxes of {printable(name, length=32).removesuffix(f' (id {id_})')} (id {id_})",
                *(split.objects[id_] for split in present.values()),
            ]
            for id_, name in self.categories.items()
        ]
        if most_classes is not None and len(rows) > most_classes:
            more = f"... {len(rows) - most_classes} more classes in log.txt"
            rows[most_classes:] = [[more, *("" for _ in present)]]
        columns = [split.counts() for split in present.values()]
        for label in columns[0]:
            counts = [column[label] for column in columns]
            if any(counts) or (most_classes is None and label not in _SHOWN_IF_ANY):
                rows.append([label, *counts])
        lines = [
            tabulate(rows, headers=["", *present]),
            *(f"Note: {note}" for note in self._notes()),
        ]
        if self.to_write:
            lines.append(f"The split is in {' and '.join(self.to_write)}.")
        return "\n".join(lines)

    def _notes(self) -> Iterator[str]:
        """Yield sentences about what is missing or unusual."""
        if self.train is None:
            yield "data.train is not given: evaluation only."
        if self.val is None:
            yield (
                "data.val is not given: no evaluation, no model_best.pth. data.val_fraction=0.2 "
                "sets a fifth of the images aside."
            )
        elif self.to_write and self.val.images == 1:
            yield "data.val_fraction leaves one image to evaluate on: AP means little."
        for kind, count in self.val.dropped.items() if self.val else ():
            if count:
                yield (
                    f"{counted(count, 'box')} {kind}: nothing can match, and the evaluation of "
                    "data.val counts a miss for each."
                )
        splits_of = defaultdict(list)
        for name, split in self._splits().items():
            for note in split.notes:
                splits_of[note].append(f"data.{name}")
        for note, names in splits_of.items():
            yield f"{' and '.join(names)}: {note}" + "." * (not note.endswith("?"))

    def _splits(self) -> dict[str, CocoSummary]:
        splits = {"train": self.train, "val": self.val}
        return {name: split for name, split in splits.items() if split is not None}


def apply_custom_data(cfg: DictConfig, data: CustomData) -> CustomDataSummary:
    """Check custom data and make a config use it: loaders, evaluator and numbers of classes.

    Nothing is changed before all checks have passed. `data.val` alone is enough for evaluation,
    `data.train` alone for training without evaluation.

    Args:
        cfg: config with the keys `model` and `dataloader`, and `train` for a split, changed in
            place. Every `num_classes` below `cfg.model` that is not an interpolation gets the
            number of the JSON.
        data: files of the dataset.

    Returns:
        Counts for the log.

    Raises:
        InputError: a file is missing or malformed, train and val differ in their categories, or
            the config learns masks and the files have none.
    """
    masks = learns_masks(cfg)
    if data.val_fraction is None:
        train = _check_split(data.train, data.train_images, "data.train", masks=masks)
        val = _check_split(data.val, data.val_images, "data.val", masks=masks)
        summary = _compare(train, val)
    else:
        summary = _split(data, cfg.train.output_dir, masks=masks)
    nodes = [node for node in walk_nodes(cfg.model) if "num_classes" in node]
    # An interpolation follows the number it refers to; writing into it would cut the link.
    owners = [node for node in nodes if not OmegaConf.is_interpolation(node, "num_classes")]
    if not owners:
        raise InputError(
            "The config has no num_classes below `model`: it cannot use a custom dataset."
        )
    for node in owners:
        node.num_classes = summary.num_classes
    if masks and summary.train is not None and summary.train.has_rle:
        cfg.dataloader.train.mapper.instance_mask_format = "bitmask"  # polygons cannot hold RLE
    loaders = (
        (cfg.dataloader.train, "custom_train", summary.train, "data.train"),
        (cfg.dataloader.test, "custom_val", summary.val, "data.val"),
    )
    for loader, name, split, key in loaders:
        if split is None:
            loader.dataset = L(refuse_missing_dataset)(key=key)
        else:
            # The evaluator must not depend on the loader being built first.
            files = {"json_file": split.json_file, "image_root": split.image_root}
            register_coco_metadata(name, **files, masks=masks, dropped=split.dropped)
            loader.dataset = L(load_coco_dataset)(names=name, **files, masks=masks)
            if not split.annotated:
                loader.dataset.unannotated = True
    if summary.val is None:
        cfg.dataloader.evaluator = None
    return summary


def note_limits(data: CustomDataSummary, cfg: DictConfig) -> CustomDataSummary:
    """Return contents with notes on too large batches and on images with too many objects.

    Args:
        data: contents of the dataset.
        cfg: effective config.
    """
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if data.train is not None and isinstance(batch, int) and batch > data.train.images:
        note = f"{batch} images per batch, of {data.train.images}: each is in it several times"
        data = replace(data, train=data.train.noted([note]))
    if data.val is None:
        return data
    limits = {
        node._get_full_key(key): node[key]
        for node in walk_nodes(cfg.model)
        for key in _DETECTION_LIMITS
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
    return replace(data, val=data.val.noted([note]))


def refuse_missing_dataset(key: str) -> None:
    """Stand in for a dataset that was not given.

    Raises:
        InputError: always.
    """
    purpose = {"data.train": "training", "data.val": "evaluation"}[key]
    raise InputError(f"{key} is not given: {purpose} needs {key}=FILE.json {key}_images=FOLDER.")


def _split(data: CustomData, output_dir: str, *, masks: bool) -> CustomDataSummary:
    """Divide the training data by file, into the same parts each time, and check both."""
    if data.train is None or data.val_fraction is None:
        raise InputError("data.val_fraction needs data.train.")
    where = f"data.train={printable(data.train)}"
    root = data.train_images or os.path.dirname(data.train)
    content = read_json(data.train, where)
    check_coco_json(data.train, root, content=content, masks=masks)
    # By a digest of the name, so that neither the order of the file nor new images matter much.
    names = {str(record["file_name"]) for record in content["images"]}
    shuffled = sorted(
        names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    )
    count = min(max(1, round(len(names) * data.val_fraction)), len(names) - 1)
    if count < 1:
        raise InputError(f"{where}: one image cannot be split: give data.val.")
    folder = os.path.join(os.path.abspath(os.path.expanduser(output_dir)), _SPLIT_FOLDER)
    checked, texts = {}, {}
    for name, files in (("train", shuffled[count:]), ("val", shuffled[:count])):
        part = only_files(content, set(files))
        text = json.dumps(part)
        # Named by content: another fraction cannot change the files of a run that goes on.
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = os.path.join(folder, f"{name}_{digest}.json")
        key, texts[path] = f"data.{name}", text
        checked[name] = check_coco_json(path, root, content=part, key=key, masks=masks)
    try:
        return replace(_compare(**checked), to_write=texts)
    except InputError as error:
        where = f"{data.val_fraction} of data.train: "
        raise InputError(str(error).replace(f"{folder}{os.sep}", where)) from error


def _compare(train: CocoSummary | None, val: CocoSummary | None) -> CustomDataSummary:
    """Check that there is something to learn from and to find, of the same classes."""
    if train is not None and val is not None and train.categories != val.categories:
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
        if split is None or not split.annotated:
            continue
        where = f"data.{key}={split.json_file}"
        dropped = [f"{count} {kind}" for kind, count in split.dropped.items() if count]
        if not split.boxes:
            others = [*dropped, *([f"{split.crowd} of crowds"] if split.crowd else [])]
            found = f" (only {', '.join(others)})" if others else ""
            raise InputError(f"{where}: it has no boxes to {purpose}{found}.")
        if sum(split.dropped.values()) > split.boxes:
            raise InputError(
                f"{where}: most boxes have nothing to {purpose} "
                f"({', '.join(dropped)}; {counted(split.boxes, 'other')}). Are they of images of "
                "another resolution, in thousandths or fractions, or not [x, y, width, height]?"
            )
    if train is not None:
        absent = [id_ for id_, count in train.objects.items() if not count]
        in_val = [id_ for id_ in absent if val is not None and val.objects[id_]]
        nowhere = sorted(set(absent) - set(in_val))
        for ids, where in ((in_val, ", which data.val has"), (nowhere, "")):
            if ids:
                names = [train.categories[id_] for id_ in ids]
                shown = first_few(names) if len(names) <= 3 else counted(len(names), "class")
                train = train.noted([f"no boxes of {shown}{where}"])
    return CustomDataSummary(train=train, val=val)


def _check_split(
    json_file: str | None, image_root: str | None, key: str, *, masks: bool
) -> CocoSummary | None:
    if json_file is not None:
        image_root = image_root or os.path.dirname(os.path.abspath(json_file))
        return check_coco_json(
            json_file, image_root, key=key, masks=masks, unannotated=key == "data.val"
        )
    if image_root is not None:
        raise InputError(f"{key}_images is given without {key}=FILE.json.")
    return None
