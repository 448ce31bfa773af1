"""Custom datasets from the command line: `data.train=FILE.json data.train_images=FOLDER ...`."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from brloss_d2.data.checks import CocoSummary
from brloss_d2.data.coco import load_coco_dataset, register_coco_metadata
from brloss_d2.data.coco_file import DROPPED
from brloss_d2.data.sources import CustomData, read_sources
from brloss_d2.errors import InputError
from brloss_d2.utils.config_nodes import learns_masks, walk_nodes
from brloss_d2.utils.files import write_text
from brloss_d2.utils.text import counted, first_few, printable

_SHOWN_IF_ANY = [f"boxes {kind}, dropped" for kind in DROPPED[1:]]  # rows of the table
_DETECTION_LIMITS = ("max_detections", "test_topk_per_image")  # per image, of a model


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
            lines.append(f"As COCO files: {' and '.join(self.to_write)}.")
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
    output_dir = OmegaConf.select(cfg, "train.output_dir") or ""
    sources = read_sources(data, os.path.expanduser(output_dir))
    checked = {split: source.check(masks=masks) for split, source in sources.items()}
    summary = _compare(checked.get("train"), checked.get("val"))
    texts = {source.json_file: source.text for source in sources.values() if source.is_new}
    summary = replace(summary, to_write=texts)
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


def check_same_classes(splits: Mapping[str, CocoSummary]) -> None:
    """Check that the splits of a dataset have the same classes.

    Args:
        splits: key or name of a split -> its contents.

    Raises:
        InputError: the ids or names of their classes differ.
    """
    (first, own), *others = splits.items()
    for second, other in others:
        if own.categories != other.categories:
            details = ""
            for name, a, b in ((first, own, other), (second, other, own)):
                difference = sorted(a.categories.items() - b.categories.items())
                labels = ", ".join(f"{id_} {label!r}" for id_, label in difference) or "none"
                details += f"\n  only in {name}: {labels}"
            raise InputError(
                f"The categories of {first} and {second} differ (id and name):{details}"
            )


def _compare(train: CocoSummary | None, val: CocoSummary | None) -> CustomDataSummary:
    """Check that there is something to learn from and to find, of the same classes."""
    if train is not None and val is not None:
        check_same_classes({"data.train": train, "data.val": val})
    for split, purpose in ((train, "learn from"), (val, "find")):
        if split is None or not split.annotated:
            continue
        dropped = [f"{count} {kind}" for kind, count in split.dropped.items() if count]
        if not split.boxes:
            others = [*dropped, *([f"{split.crowd} of crowds"] if split.crowd else [])]
            found = f" (only {', '.join(others)})" if others else ""
            raise InputError(f"{split.where}: it has no boxes to {purpose}{found}.")
        if sum(split.dropped.values()) > split.boxes:
            raise InputError(
                f"{split.where}: most boxes have nothing to {purpose} "
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
