"""Folders in the format of YOLO: a text file of boxes or polygons per image, names in data.yaml."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from brloss_d2.data.fields import Record, whole_number
from brloss_d2.data.folders.records import Problems, numbered
from brloss_d2.data.folders.tree import Tree, is_image
from brloss_d2.data.masks import mask_box
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable

NAME = "YOLO"
LOOKED_FOR = "a text file per image (labels/*.txt, or next to the images), names in data.yaml"
_NAMES_FILES = ("classes.txt", "obj.names")  # of LabelImg and of Darknet
_LABEL_FOLDERS = ("labels", "train", "val", "valid", "test")
_NAMES = "expected a list of names, or numbers from 0 with names"
_SLACK = 0.01  # of the sides of an image: rounding
_ROW = "expected class, x, y, w, h or class, x1, y1, x2, y2, x3, y3, ..."


def recognizes(tree: Tree) -> bool:
    """Return whether a folder has label files of YOLO."""
    return any(_is_labels(tree, file) for file in tree.ending(".txt"))


def read(tree: Tree) -> tuple[Record, list[str]]:
    """Return the content of a folder as that of a COCO file, and notes.

    Classes keep their numbers, which start at 0. Images without a label file, or with an empty
    one, are images without objects. Of poses, which data.yaml tells by `kpt_shape`, the boxes are
    read.

    Args:
        tree: files of the folder.

    Raises:
        InputError: files have mistakes; the message names the first ones.
    """
    info = _read_info(tree)
    names = _names(tree, info)
    boxes_only = "kpt_shape" in info
    problems = Problems("lines of the label files")
    objects: dict[str, list[Record]] = {image: [] for image in tree.images}
    good = 0
    for file in tree.ending(".txt"):
        if not _is_labels(tree, file):
            continue
        image = tree.image_of(file)
        if image is None:
            problems.found.append(f"{printable(file)}: its image is missing")
            continue
        with problems.about(file):
            problems.check_alone(image, file)
        for number, line in enumerate(tree.lines(file), 1):
            with problems.about(f"{file}, line {number}"):
                if line.strip():
                    item = _read_row(line.split(), names, boxes_only=boxes_only)
                    objects[image].append(item)
                    good += 1
    problems.refuse(good)
    if not names:
        last = max((o["category_id"] for found in objects.values() for o in found), default=0)
        names = {number: f"class {number}" for number in range(last + 1)}
    content = numbered(tree, list(objects.items()), categories=names)
    _scale(content)
    missing: list[str] = []
    splits = dict(_splits(tree, info, missing))
    for image in content["images"]:
        if splits:
            image["split"] = splits.get(image["file_name"], "none")
    notes = [f"missing, but listed: {first_few(missing)}"] if missing else []
    return content, notes


def _read_info(tree: Tree) -> dict[str, Any]:
    """Return the content of data.yaml, or of Darknet's obj.data, and its path as `file`; or {}.

    The file is in the folder, in the one above it, which has the splits, or below it.
    """
    above = os.path.dirname(tree.folder)
    paths = [*map(tree.path, tree.files), *(os.path.join(above, n) for n in os.listdir(above))]
    found = [path for path in paths if path.endswith((".yaml", ".yml"))]
    order = {tree.folder: 0, above: 1}
    for path in sorted(found, key=lambda path: (order.get(os.path.dirname(path), 2), path)):
        try:
            content = _load(path)
        except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
            if not os.path.basename(path).startswith("data."):
                continue
            line = getattr(getattr(error, "problem_mark", None), "line", None)
            problem = printable(getattr(error, "problem", "") or error, length=80)
            where = "" if line is None else f", line {line + 1}"
            raise InputError(f"{printable(path)}{where}: {problem}.") from error
        if isinstance(content, dict) and {"names", "nc"} & set(content):
            return {**content, "file": path}
    for file in tree.ending(".data"):
        pairs = (line.partition("=") for line in tree.lines(file))
        values = {key.strip(): value.strip() for key, _, value in pairs}
        if "train" in values:
            return {
                "file": tree.path(file),
                **{key: values[key] for key in ("train", "valid", "test") if key in values},
            }
    return {}


def _load(path: str) -> Any:
    with open(path, encoding="utf-8-sig") as file:
        return yaml.safe_load(file)


def _names(tree: Tree, info: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the classes by their numbers; none if no file tells them."""
    names = info.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict):
        found = {
            id_: str(name)
            for key, name in names.items()
            if (id_ := whole_number(key)) is not None and id_ >= 0
            if isinstance(name, str | int | float)
        }
        if len(found) < len(names):
            raise InputError(f"{info['file']}: names is {printable(names, length=80)}: {_NAMES}")
        if info.get("nc", len(found)) != len(found):
            raise InputError(f"{info['file']}: nc is {info['nc']}, but it has {len(found)} names.")
        return found
    if names is not None:
        raise InputError(f"{info['file']}: names is {printable(names, length=80)}: {_NAMES}")
    for file in tree.files:
        if os.path.basename(file) in _NAMES_FILES:
            lines = [line.strip() for line in tree.lines(file)]
            return dict(enumerate(filter(None, lines)))
    return {number: f"class {number}" for number in range(whole_number(info.get("nc")) or 0)}


def _is_labels(tree: Tree, file: str) -> bool:
    """Return whether a text file belongs to an image, or has rows of numbers in a labels folder."""
    folder, name = os.path.split(file)
    if name in _NAMES_FILES:
        return False
    if tree.image_of(file) is not None:
        return True
    first = next(iter(tree.lines(file)), "").split()
    return folder.casefold().split("/")[-1] in _LABEL_FOLDERS and len(first) > 4


def _read_row(words: Sequence[str], names: Mapping[int, str], *, boxes_only: bool) -> Record:
    """Return class and box, or polygons, of a row; in parts of the sides of the image."""
    try:
        label, *numbers = [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"{printable(' '.join(words), length=60)}: {_ROW}") from error
    id_ = whole_number(label)
    if id_ is None or id_ < 0 or (names and id_ not in names):
        known = first_few([f"{i} {name}" for i, name in names.items()], count=3) or "0, 1, ..."
        raise InputError(f"class {words[0]}: expected one of {known}")
    if boxes_only:
        numbers = numbers[:4]
    if len(numbers) == 5:
        raise InputError(f"6 numbers, as of a detection with a score: {_ROW}")
    if len(numbers) < 4 or len(numbers) % 2:
        raise InputError(f"{len(words)} numbers: {_ROW}")
    if not all(-_SLACK <= number <= 1 + _SLACK for number in numbers):
        raise InputError(
            f"{printable(' '.join(words), length=60)}: expected parts of the width and height of "
            "the image, from 0 to 1"
        )
    if len(numbers) == 4:
        x, y, w, h = numbers
        if min(w, h) < 0:
            raise InputError("width or height is negative")
        return {"category_id": id_, "bbox": [x - w / 2, y - h / 2, w, h]}
    return {"category_id": id_, "bbox": mask_box([numbers]), "segmentation": [numbers]}


def _scale(content: Record) -> None:
    """Change boxes and polygons from parts of the sides of their image to pixels."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for item in content["annotations"]:
        size = sizes[item["image_id"]]
        item["bbox"] = [number * size[i % 2] for i, number in enumerate(item["bbox"])]
        if "segmentation" in item:
            item["segmentation"] = [
                [number * size[i % 2] for i, number in enumerate(polygon)]
                for polygon in item["segmentation"]
            ]


def _splits(tree: Tree, info: Mapping[str, Any], missing: list[str]) -> Iterator[tuple[str, str]]:
    """Yield images and their splits, as data.yaml lists them, unless it is above the folder.

    Paths may be those of another machine or of another folder, of which the end counts. A missing
    `val` or `test` is none. What is listed and not there is appended to `missing`.
    """
    below = os.path.relpath(os.path.dirname(info["file"]), tree.folder) if info else ".."
    if below == "..":
        return
    base = "" if below == "." else below.replace(os.sep, "/") + "/"
    for split, keys in (("test", ["test"]), ("val", ["val", "valid"]), ("train", ["train"])):
        entries: Any = next((info[key] for key in keys if info.get(key)), [])
        for entry in [entries] if isinstance(entries, str) else entries:
            found = list(_listed(tree, base, str(entry), missing))
            if not found and split == "train":
                raise InputError(
                    f"{info['file']}: train is {printable(entry)}, which has no images in "
                    f"{printable(tree.image_root)}."
                )
            missing += [] if found else [str(entry)]
            yield from ((image, split) for image in found)


def _listed(
    tree: Tree, base: str, entry: str, missing: list[str], *, in_list: bool = False
) -> Iterator[str]:
    """Yield an image below `base`, those of a folder, or those that a text file lists.

    A list names no lists, so that it cannot name itself.
    """
    parts = [p for p in PurePosixPath(entry.replace("\\", "/")).parts if p not in ("..", ".", "/")]
    for start in range(len(parts)):
        tail = base + "/".join(parts[start:])
        if tail in tree.image_folders:
            yield from tree.image_folders[tail]
        elif tail in tree.known and is_image(tail):
            yield tail
        elif tail in tree.known and tail.endswith(".txt") and not in_list:
            for line in filter(None, map(str.strip, tree.lines(tail))):
                images = list(_listed(tree, base, line, missing, in_list=True))
                missing += [] if images else [line]
                yield from images
        else:
            continue
        return
    if not parts or parts[-1] == os.path.basename(os.path.join(tree.folder, base.rstrip("/"))):
        yield from tree.images
