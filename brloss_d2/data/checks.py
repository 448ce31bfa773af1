"""Check a COCO-format JSON file and its images before anything is trained or written.

detectron2 and pycocotools report the mistakes below as `KeyError`, `AssertionError` or not at all,
some of them only after hours, when the first evaluation starts. Here each is one sentence.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from brloss_d2.errors import InputError

_NAMED = 5  # how many offenders a message names


@dataclass(frozen=True)
class CocoSummary:
    """What a checked COCO-format file contains.

    Attributes:
        json_file: absolute path of the JSON file.
        image_root: absolute path of the folder that its file names are relative to.
        categories: category id -> name, sorted by id.
        images: number of images.
        annotations: number of annotations of any kind.
        boxes_without_area: annotations whose width or height is not positive; never trained on.
        crowd: annotations with area that mark a crowd; ignored in training and evaluation.
        images_without_objects: images without any box that has an area and is not a crowd.
        objects: category id -> number of boxes to train on.
        boxes_without_mask: boxes to train on without a `segmentation`.
        not_evaluable: annotations without `area` or `iscrowd`, which COCOEvaluator reads.
        has_annotation_id_zero: pycocotools counts a detection of that object as a false alarm.
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
    has_annotation_id_zero: bool

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    @property
    def boxes(self) -> int:
        """Boxes to train on: with area, not a crowd."""
        return sum(self.objects.values())


def check_coco_json(json_file: str, image_root: str, *, key: str = "data.train") -> CocoSummary:
    """Read a COCO-format file, check all of it and the presence of its images.

    Reads the JSON and lists the folders; opens no image. Linear in images and annotations.

    Args:
        json_file: the annotations.
        image_root: the folder that the file names in the JSON are relative to.
        key: the command-line key that named `json_file`; messages refer to it and to
            `<key>_images`.

    Raises:
        InputError: for the first kind of mistake found; the message names the first offenders.
    """
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    where = f"{key}={json_file}"
    content = _read_json(json_file, where)
    categories = _check_categories(content["categories"], where)
    _check_images(content["images"], where)
    _check_annotations(content, categories, where)
    _check_image_files(content["images"], image_root, key)
    return _summarize(content, categories, json_file, image_root)


def has_area(annotation: dict[str, Any]) -> bool:
    """Whether the box, [x, y, width, height] in pixels, covers anything."""
    _, _, width, height = annotation["bbox"]
    return width > 0 and height > 0


def _read_json(json_file: str, where: str) -> dict[str, Any]:
    if not os.path.isfile(json_file):
        what = "is a folder" if os.path.isdir(json_file) else "does not exist"
        raise InputError(f"{where}: this file {what}; expected a COCO-format JSON file.")
    if os.path.getsize(json_file) == 0:
        raise InputError(f"{where}: this file is empty; expected a COCO-format JSON file.")
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InputError(f"{where}: this file cannot be read: {error.strerror}.") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise InputError(f"{where}: this file is not valid JSON: {error}.") from error
    _check_sections(content, where)
    return content


def _check_sections(content: object, where: str) -> None:
    sections = ("images", "annotations", "categories")
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: not COCO format: expected an object with the keys {', '.join(sections)}, "
            f"got a {type(content).__name__}."
        )
    missing = [name for name in sections if name not in content]
    if missing:
        got = ", ".join(map(str, content)) or "none"
        raise InputError(
            f"{where}: not COCO format: no key {', '.join(missing)} (keys found: {_cut(got)})."
        )
    for name in sections:
        records = content[name]
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(f"{where}: not COCO format: {name!r} is not a list of objects.")


def _check_categories(records: list[dict[str, Any]], where: str) -> dict[int, str]:
    if not records:
        raise InputError(f"{where}: it lists no categories; there is nothing to detect.")
    _refuse(
        [r for r in records if not _is_id(r.get("id")) or not isinstance(r.get("name"), str)],
        "have no integer id or no name",
        "categories",
        where,
    )
    _check_unique(records, "categories", where)
    return {r["id"]: r["name"] for r in sorted(records, key=lambda r: r["id"])}


def _check_images(records: list[dict[str, Any]], where: str) -> None:
    if not records:
        raise InputError(f"{where}: it lists no images.")
    _refuse([r for r in records if not _is_id(r.get("id"))], "have no integer id", "images", where)
    _check_unique(records, "images", where)
    bad = [r for r in records if not isinstance(r.get("file_name"), str) or not r["file_name"]]
    _refuse(bad, "have no file_name", "images", where)
    bad = [r for r in records if not (_is_size(r.get("height")) and _is_size(r.get("width")))]
    _refuse(bad, "have no positive height and width (pixels)", "images", where)


def _check_annotations(content: dict[str, Any], categories: dict[int, str], where: str) -> None:
    records, name = content["annotations"], "annotations"
    _refuse([r for r in records if not _is_id(r.get("id"))], "have no integer id", name, where)
    _check_unique(records, name, where)
    images = {r["id"] for r in content["images"]}
    bad = [r for r in records if not _is_id(r.get("image_id")) or r["image_id"] not in images]
    _refuse(bad, "belong to images that the file does not list", name, where, show="image_id")
    bad = [r for r in records if _unknown(r.get("category_id"), categories)]
    _refuse(bad, "name categories that the file does not list", name, where, show="category_id")
    bad = [r for r in records if not _is_box(r.get("bbox"))]
    _refuse(bad, "have no bbox of 4 finite numbers [x, y, w, h]", name, where, show="bbox")
    # detectron2 stops at these with an assertion.
    bad = [r for r in records if r.get("ignore", 0)]
    _refuse(bad, "are marked 'ignore', which is not supported: remove them", name, where)


def _unknown(category: object, categories: dict[int, str]) -> bool:
    return not _is_id(category) or category not in categories


def _check_image_files(records: list[dict[str, Any]], image_root: str, key: str) -> None:
    if not os.path.isdir(image_root):
        raise InputError(f"{key}_images={image_root}: this folder does not exist.")
    missing = _missing_files([os.path.join(image_root, r["file_name"]) for r in records])
    if missing:
        first = "".join(f"\n  {os.path.relpath(path, image_root)}" for path in missing[:_NAMED])
        more = f"\n  and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise InputError(
            f"{len(missing)} of the {len(records)} images of {key} are missing in {image_root}:"
            f"{first}{more}\nSet {key}_images=FOLDER to the folder that the file names in the "
            "JSON are relative to."
        )


def _missing_files(paths: Sequence[str]) -> list[str]:
    # One listing of each folder instead of one system call for each image: on a network file
    # system that is seconds instead of minutes for COCO. Only what is not listed is asked for.
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder] and not os.path.isfile(path):
            missing.append(path)
    return missing


def _summarize(
    content: dict[str, Any], categories: dict[int, str], json_file: str, image_root: str
) -> CocoSummary:
    annotations = content["annotations"]
    with_area = [r for r in annotations if has_area(r)]
    objects = [r for r in with_area if not r.get("iscrowd", 0)]
    per_class = Counter(r["category_id"] for r in objects)
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
        has_annotation_id_zero=any(r["id"] == 0 for r in annotations),
    )


def _check_unique(records: list[dict[str, Any]], name: str, where: str) -> None:
    repeated = [id_ for id_, count in Counter(r["id"] for r in records).items() if count > 1]
    if repeated:
        raise InputError(
            f"{where}: {len(repeated)} ids of {name} occur more than once: {_first(repeated)}."
        )


def _refuse(bad: list[dict[str, Any]], what: str, name: str, where: str, *, show: str = "") -> None:
    """Raise an `InputError` about the records `bad` unless there are none."""
    if not bad:
        return
    shown = (f"id {r.get('id')}" + (f" ({show} {r.get(show)})" if show else "") for r in bad)
    raise InputError(f"{where}: {len(bad)} {name} {what}: {_first(shown, len(bad))}.")


def _first(items: Iterable[object], count: int | None = None) -> str:
    texts = [_cut(str(item)) for item, _ in zip(items, range(_NAMED), strict=False)]
    total = len(items) if isinstance(items, list) else count or len(texts)
    return ", ".join(texts) + (", ..." if total > len(texts) else "")


def _cut(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
