"""Checks of a COCO-format JSON file and its images before training starts.

detectron2 and pycocotools report the mistakes below as `KeyError`, as `AssertionError` or not at
all, some of them only after hours, when the first evaluation starts. Here each is one sentence.
"""

import json
import math
import operator
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable

Record = dict[str, Any]
Sections = dict[str, list[Record]]

_SECTIONS = ("images", "annotations", "categories")
_NAMED = 5  # number of offenders that a message names
_SHOWN = ("image_id", "category_id", "bbox")  # keys whose bad values a message shows


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return _is_id(value) and value > 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_box(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(side, int | float) and math.isfinite(side) for side in value)
    )


# Per section, in the order of reference: a key, what is wrong if its value fails the test, and the
# test or the section whose ids the value refers to. The first rule is about ids.
_RULES: dict[str, list[tuple[str, str, Callable[[Any], bool] | str]]] = {
    "categories": [
        ("id", "have no integer id or no name", _is_id),
        ("name", "have no integer id or no name", _is_text),
    ],
    "images": [
        ("id", "have no integer id", _is_id),
        ("file_name", "have no file_name", lambda value: _is_text(value) and value != ""),
        ("height", "have no positive height and width (pixels)", _is_side),
        ("width", "have no positive height and width (pixels)", _is_side),
    ],
    "annotations": [
        ("id", "have no integer id", _is_id),
        ("image_id", "belong to images that the file does not list", "images"),
        ("category_id", "name categories that the file does not list", "categories"),
        ("bbox", "have no bbox of 4 finite numbers [x, y, w, h]", _is_box),
        # detectron2 stops at these with an assertion.
        ("ignore", "are marked 'ignore', which is not supported: remove them", operator.not_),
    ],
}


@dataclass(frozen=True)
class CocoSummary:
    """Contents of a checked COCO-format file.

    Attributes:
        json_file: absolute path of the JSON file.
        image_root: absolute path of the folder that its file names are relative to.
        categories: category id -> name, sorted by id.
        images: number of images.
        annotations: number of annotations of any kind.
        boxes_without_area: number of annotations whose width or height is not positive; they are
            never trained on.
        crowd: number of annotations with area that mark a crowd; they are ignored in training and
            evaluation.
        images_without_objects: number of images without any box to train on.
        objects: category id -> number of boxes to train on.
        boxes_without_mask: number of boxes to train on that have no `segmentation`.
        not_evaluable: number of annotations without `area` or `iscrowd`, which the evaluation
            reads.
    """

    json_file: str
    image_root: str
    categories: dict[int, str]
    images: int
    annotations: int
    boxes_without_area: int
    crowd: int
    images_without_objects: int
    objects: dict[int, int]
    boxes_without_mask: int
    not_evaluable: int

    @property
    def num_classes(self) -> int:
        """Number of categories, at least 1."""
        return len(self.categories)

    @property
    def boxes(self) -> int:
        """Number of boxes to train on: with area and not a crowd."""
        return sum(self.objects.values())


def check_coco_json(json_file: str, image_root: str, *, key: str = "data.train") -> CocoSummary:
    """Read a COCO-format file, check all of it and the presence of its images.

    Reads the JSON and lists the folders; opens no image. Linear in images and annotations.

    Args:
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.
        key: command-line key that named `json_file`; messages refer to it and to `<key>_images`.

    Raises:
        InputError: the file has a mistake; the message names the first offenders of its kind.
    """
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    where = f"{key}={json_file}"
    content = _read_sections(json_file, where)
    _check_records(content, where)
    if not os.path.isdir(image_root):
        raise InputError(f"{key}_images={image_root}: this folder does not exist.")
    # One listing per folder instead of one system call per image: on a network file system that
    # is seconds instead of minutes for COCO. Only files that are not listed are asked for.
    listed: dict[str, set[str]] = {}
    missing = []
    for record in content["images"]:
        path = os.path.join(image_root, record["file_name"])
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder] and not os.path.isfile(path):
            missing.append(path)
    if missing:
        first = "".join(f"\n  {os.path.relpath(path, image_root)}" for path in missing[:_NAMED])
        more = f"\n  and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{len(missing)} of the {len(content['images'])} images of {key} are missing in "
            f"{image_root}:{first}{more}\nSet {key}_images=FOLDER to the folder that the file "
            "names in the JSON are relative to."
        )
    return _summarize(content, json_file, image_root)


def has_area(annotation: Record) -> bool:
    """Whether the box, [x, y, width, height] in pixels, covers anything."""
    _, _, width, height = annotation["bbox"]
    return width > 0 and height > 0


def _read_sections(json_file: str, where: str) -> Sections:
    """Return the content of a file, whose sections are lists of objects."""
    expected = "expected a COCO-format JSON file"
    if not os.path.isfile(json_file):
        what = "is a folder" if os.path.isdir(json_file) else "does not exist"
        raise InputError(f"{where}: this file {what}; {expected}.")
    if os.path.getsize(json_file) == 0:
        raise InputError(f"{where}: this file is empty; {expected}.")
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InputError(f"{where}: this file cannot be read: {error.strerror}.") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InputError(f"{where}: this file is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: not COCO format: expected an object with the keys {', '.join(_SECTIONS)}, "
            f"got a {type(content).__name__}."
        )
    missing = ", ".join(name for name in _SECTIONS if name not in content)
    if missing:
        got = printable(", ".join(content) or "none", length=80)
        raise InputError(f"{where}: not COCO format: no key {missing} (keys found: {got}).")
    for name in _SECTIONS:
        records = content[name]
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(f"{where}: not COCO format: {name!r} is not a list of objects.")
    return content


def _check_records(content: Sections, where: str) -> None:
    if not content["categories"]:
        raise InputError(f"{where}: it lists no categories; there is nothing to detect.")
    if not content["images"]:
        raise InputError(f"{where}: it lists no images.")
    ids: dict[str, set[int]] = {}
    for name, rules in _RULES.items():
        records = content[name]
        for key, what, test in rules:
            if isinstance(test, str):
                known = ids[test]
                bad = [r for r in records if not (_is_id(r.get(key)) and r[key] in known)]
            else:
                bad = [r for r in records if not test(r.get(key))]
            if bad:
                show = f" ({key} {{}})" if key in _SHOWN else ""
                texts = [f"id {record.get('id')}{show.format(record.get(key))}" for record in bad]
                raise InputError(f"{where}: {len(bad)} {name} {what}: {first_few(texts)}.")
            if key == "id":
                counts = Counter(record["id"] for record in records)
                ids[name] = set(counts)
                repeated = [id_ for id_, count in counts.items() if count > 1]
                if repeated:
                    raise InputError(
                        f"{where}: {len(repeated)} ids of {name} occur more than once: "
                        f"{first_few(repeated)}."
                    )


def _summarize(content: Sections, json_file: str, image_root: str) -> CocoSummary:
    annotations = content["annotations"]
    with_area = [r for r in annotations if has_area(r)]
    objects = [r for r in with_area if not r.get("iscrowd", 0)]
    per_class = Counter(r["category_id"] for r in objects)
    categories = {r["id"]: r["name"] for r in sorted(content["categories"], key=lambda r: r["id"])}
    return CocoSummary(
        json_file=json_file,
        image_root=image_root,
        categories=categories,
        images=len(content["images"]),
        annotations=len(annotations),
        boxes_without_area=len(annotations) - len(with_area),
        crowd=len(with_area) - len(objects),
        images_without_objects=len(content["images"]) - len({r["image_id"] for r in objects}),
        objects={id_: per_class[id_] for id_ in categories},
        boxes_without_mask=sum(not r.get("segmentation") for r in objects),
        not_evaluable=sum("area" not in r or "iscrowd" not in r for r in annotations),
    )
