"""What `data.train` and `data.val` name: COCO files, or folders in other formats."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from brloss_d2.data.categories import read_categories
from brloss_d2.data.checks import CocoSummary, check_coco_json
from brloss_d2.data.coco_file import only_files, read_json
from brloss_d2.data.folders import DataFolder, read_folder, with_names_of
from brloss_d2.errors import InputError
from brloss_d2.utils.suggest import did_you_mean
from brloss_d2.utils.text import printable

_PREFIX = "data."
# Folder below train.output_dir for the COCO files of folders and of data.val_fraction.
_WRITTEN = "split"


def _key(text: str) -> Any:
    """Return a dataclass field that is None by default and knows its description."""
    return field(default=None, metadata={"text": text})


@dataclass(frozen=True)
class CustomData:
    """The `data.*` keys of a command line.

    Attributes:
        train: path of the training annotations: a file in COCO format, or a folder that
            `read_folder` recognizes.
        train_images: folder of the training images; the folder of `train` by default.
        val: path of the validation annotations, as `train`.
        val_images: folder of the validation images; the folder of `val` by default.
        val_fraction: part of the training images to set aside for validation, in (0, 1).
    """

    train: str | None = _key("training data: a COCO file, or a folder of any known format")
    train_images: str | None = _key("folder of the training images; that of data.train by default")
    val: str | None = _key("validation data, as data.train; its own split of it by default")
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
class Source:
    """Annotations of a split before their check.

    Attributes:
        key: command-line key that named them.
        where: what messages call them.
        json_file: path of the COCO file.
        image_root: folder that the names of its images are relative to.
        content: its content; None if it has not been read.
        is_new: whether the file has to be written.
        notes: sentences for the log.
        unannotated: whether the list of annotations may be missing.
    """

    key: str
    where: str
    json_file: str
    image_root: str
    content: Any = None
    is_new: bool = False
    notes: tuple[str, ...] = ()
    unannotated: bool = False

    def check(self, *, masks: bool) -> CocoSummary:
        """Check the annotations, as `check_coco_json` does.

        Args:
            masks: whether every object needs a mask.
        """
        checked = check_coco_json(
            self.json_file,
            self.image_root,
            content=self.content,
            key=self.key,
            where=self.where,
            masks=masks,
            unannotated=self.unannotated,
        )
        return replace(checked, notes=(*self.notes, *checked.notes))

    def written(self, folder: str) -> "Source":
        """Return the annotations as those of a new file in a folder, named by its content."""
        # So that other data cannot change the files of a run that goes on.
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        path = os.path.join(folder, f"{self.key.removeprefix(_PREFIX)}_{digest}.json")
        return replace(self, json_file=path, is_new=True)

    @property
    def text(self) -> str:
        """Text of the COCO file."""
        return json.dumps(self.content)


def read_sources(data: CustomData, output_dir: str) -> dict[str, Source]:
    """Find the annotations that the keys name; read folders, and split them if asked to.

    Args:
        data: keys of the command line.
        output_dir: folder of the run, below which new files are to be written.

    Returns:
        "train" and "val", as far as there are any -> annotations.

    Raises:
        InputError: a folder is of no known format or has mistakes, or keys do not fit together.
    """
    target = os.path.join(os.path.abspath(output_dir), _WRITTEN)
    folders = _read_folders(data)
    found: dict[str, Source] = {}
    for split in ("train", "val"):
        path, root = getattr(data, split), getattr(data, f"{split}_images")
        key = _PREFIX + split
        if path is None:
            if root is not None:
                raise InputError(f"{key}_images is given without {key}=FILE.json.")
        elif split in folders:
            found[split] = of_folder(folders[split], split, target, key=key)
        else:
            root = root or os.path.dirname(path)
            where = f"{key}={printable(path)}"
            found[split] = Source(key, where, path, root, unannotated=split == "val")
    if "train" not in found:
        return found
    given = folders.get("train")
    own = "val" in given.parts if given else False
    if data.val_fraction is not None:
        if own:
            raise InputError(
                f"{found['train'].where}: it has a split for validation: leave data.val_fraction "
                "out."
            )
        return divided(found["train"], data.val_fraction, target)
    if given and own and data.val is None and len(given.parts) > 1:
        found["val"] = of_folder(given, "val", target, key="data.val")
    return found


def _read_folders(data: CustomData) -> dict[str, DataFolder]:
    """Return the contents of the keys that name folders, with the same numbers of classes."""
    found: dict[str, DataFolder] = {}
    for split in ("train", "val"):
        path, root = getattr(data, split), getattr(data, f"{split}_images")
        if path is None or not (os.path.isdir(path) or path.endswith((".yaml", ".yml"))):
            continue
        try:
            found[split] = read_folder(path, root)
        except InputError as error:
            raise InputError(f"{_PREFIX}{split}={printable(path)}: {error}") from error
    for split, other in (("val", "train"), ("train", "val")):
        file = getattr(data, other)
        if split not in found or not found[split].names_classes or file is None:
            continue
        records = found[other].part(other).content["categories"] if other in found else ()
        categories = {record["id"]: record["name"] for record in records} or read_categories(file)
        found[split] = with_names_of(found[split], categories)
    return found


def of_folder(folder: DataFolder, split: str, target: str, *, key: str = "data.train") -> Source:
    """Return the annotations of a split of a folder.

    Args:
        folder: contents of a folder.
        split: split to take, unless there is only one.
        target: folder of the COCO file to be written.
        key: command-line key of the annotations.

    Raises:
        InputError: the folder has no such split.
    """
    where = f"{key}={printable(folder.path)}"
    try:
        part = folder.part(split)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if part.file:
        where = f"{key}={printable(part.file)}"
        return Source(key, where, part.file, part.image_root, part.content, notes=folder.notes)
    source = Source(key, where, "", part.image_root, part.content, notes=folder.notes)
    return source.written(target)


def divided(source: Source, fraction: float, target: str) -> dict[str, Source]:
    """Divide training data by file, into the same parts each time.

    Args:
        source: annotations of all images.
        fraction: part of the images for validation, in (0, 1).
        target: folder of the COCO files to be written.

    Returns:
        Annotations of "train" and "val".

    Raises:
        InputError: the annotations have a mistake, or are of one image.
    """
    if source.content is None:
        source = replace(source, content=read_json(source.json_file, source.where))
    source.check(masks=False)
    # By a digest of the name, so that neither the order of the file nor new images matter much.
    names = {str(record["file_name"]) for record in source.content["images"]}
    groups = {_origin(name) for name in names}
    shuffled = sorted(
        groups, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    )
    count = min(max(1, round(len(groups) * fraction)), len(groups) - 1)
    if count < 1:
        raise InputError(f"{source.where}: one image cannot be split: give data.val.")
    found: dict[str, Source] = {}
    for split, kept in (("train", set(shuffled[count:])), ("val", set(shuffled[:count]))):
        content = only_files(source.content, {name for name in names if _origin(name) in kept})
        where = f"data.{split} ({fraction} of {source.where})"
        part = replace(source, key=_PREFIX + split, where=where, content=content)
        found[split] = part.written(target)
    return found


def _origin(name: str) -> str:
    """Return what the copies that Roboflow makes of an image have in common."""
    return name.partition(".rf.")[0]
