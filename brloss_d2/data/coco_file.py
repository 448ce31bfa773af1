"""The one reading of a COCO-format JSON file.

The check before training, the loader and the evaluator all work from what `read_coco` returns, so
that they cannot disagree about a field.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pycocotools.mask as mask_util

from brloss_d2.data.masks import MaskError, is_number, normalized_mask, to_rle
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable

Record = dict[str, Any]

# Of each key: what is wrong with records whose value `read` returns None for.
_Rule = tuple[str, str, Callable[[Any], Any]]

DROPPED = ("without area", "outside of the image", "with an empty mask")
_SECTIONS = ("images", "annotations", "categories")
_SHOWN = ("image_id", "category_id", "bbox", "iscrowd", "area")  # keys whose bad values are shown
_LEAST_SIDE = 1e-4  # pixels; detectron2 drops a box that is not wider after the augmentation
_LARGEST_ID = 2**63  # exclusive; pycocotools keeps ids in 64 bits
_LARGEST_AREA = 1e10  # pixels; the COCO protocol leaves larger objects out


@dataclass(frozen=True)
class CocoFile:
    """Content of a COCO-format file, with one meaning for each field.

    Attributes:
        categories: category id -> name, sorted by id. Names are printable and differ: two
            categories named `nut` are `nut (id 1)` and `nut (id 3)`.
        images: records with `id`, `file_name`, `height` and `width`.
        annotations: records with `id`, `image_id`, `category_id`, `bbox`, `area`, `iscrowd` (0 or
            1) and `role`; where they are good, `segmentation`, `keypoints` and `num_keypoints`.
            The role is `object`, the only one to learn from; `crowd`, which is ignored; or one of
            `DROPPED`: boxes that no detector can learn. An empty mask is one without any pixel of
            the image; it is known only if masks were asked for.
        notes: sentences about what was read in another way than it is written.
    """

    categories: dict[int, str]
    images: list[Record]
    annotations: list[Record]
    notes: tuple[str, ...]


def read_coco(
    json_file: str,
    *,
    masks: bool | None = None,
    where: str | None = None,
    evaluation: bool = False,
) -> CocoFile:
    """Read a COCO-format file and give each field its one meaning.

    Integers may be written as text or as whole floats. Ids of images that are other text, and all
    ids beyond 64 bits, become numbers from 1. A missing `iscrowd` is 0; an `area` that is missing
    or 0 is that of the mask, if masks are asked for, or of the box. Linear in images and
    annotations.

    Args:
        json_file: path of the annotations, in UTF-8, UTF-16 or UTF-32.
        masks: whether every object needs a mask; False does not look at `segmentation`, and None
            keeps the masks that are good.
        where: name of the file in messages; its path by default.
        evaluation: whether to leave out what no evaluation reads: names of files and ids of
            annotations, which may then be missing.

    Raises:
        InputError: the file has a mistake; the message names the first offenders of its kind.
    """
    where = where or printable(json_file)
    sections = _read_sections(json_file, where)
    labels, categories = read_category_section(sections["categories"], where)
    side = "have no positive height and width (pixels)"
    rules: list[_Rule] = [
        ("id", "have no integer id", _identity),
        ("file_name", "have no file_name", _any if evaluation else _file_name),
        ("height", side, _side),
        ("width", side, _side),
    ]
    images = _read_records("images", sections["images"], rules, where)
    image_of, notes = {image["id"]: image for image in images}, []
    if any(isinstance(id_, str) or abs(id_) >= _LARGEST_ID for id_ in image_of):
        for number, image in enumerate(images, 1):
            image["id"] = number
        notes.append(
            "ids of images are text or beyond 64 bits; results number the images from 1, in the "
            "order of the file"
        )
    written = sections["annotations"]
    rules = [
        (
            "image_id",
            "belong to images that the file does not list",
            lambda value: image_of.get(_identity(value)),
        ),
        (
            "category_id",
            "name categories that the file does not list",
            lambda value: labels.get(_identity(value)),
        ),
        ("bbox", "have no bbox of 4 finite numbers [x, y, w, h]", _box),
        ("iscrowd", "have an iscrowd that is none of 0, 1, true, false and null", _flag),
        ("area", "have an area that is no finite number >= 0 (pixels)", _area),
        # detectron2 and pycocotools do not agree about them.
        ("ignore", "are marked 'ignore', which is not supported: remove them", _no_mark),
    ]
    if not evaluation:
        rules.insert(0, ("id", "have no integer id", _identity))
    annotations = _read_records("annotations", written, rules, where)
    faults, without_mask, too_large, zero_areas = [], [], [], 0
    for record, annotation in zip(written, annotations, strict=True):
        image = annotation["image_id"]
        annotation["image_id"] = image["id"]
        annotation["role"] = _role(annotation, image)
        zero_areas += record.get("area") == 0 and annotation["role"] == "object"
        points = record.get("keypoints")
        if isinstance(points, list) and len(points) % 3 == 0 and all(map(is_number, points)):
            annotation["keypoints"] = points
            annotation["num_keypoints"] = sum(seen > 0 for seen in points[2::3])
        if masks is not False:
            try:
                _add_mask(annotation, record.get("segmentation"), image, exact=bool(masks))
            except MaskError as error:
                faults.append(f"id {record.get('id')} ({error})")
            if "segmentation" not in annotation:
                without_mask.append(f"id {record.get('id')}")
        box = max(annotation["bbox"][2], 0) * max(annotation["bbox"][3], 0)
        if annotation["area"] > 1.01 * max(box, image["height"] * image["width"]) + 1:
            too_large.append(f"id {record.get('id')} (area {annotation['area']})")
        annotation["area"] = min(annotation["area"] or box, _LARGEST_AREA)
    if too_large:
        raise InputError(
            f"{where}: {len(too_large)} annotations have an area (pixels) larger than their image "
            f"and box: {first_few(too_large)}."
        )
    if masks:
        _check_masks(faults, without_mask, annotations, where)
    if zero_areas:
        notes.append(
            f"the area of {zero_areas} objects is 0; the evaluation takes that of their "
            f"{'mask' if masks else 'box'}"
        )
    return CocoFile(categories, images, annotations, tuple(notes))


def read_category_section(
    records: Sequence[Record], where: str
) -> tuple[dict[Any, int], dict[int, str]]:
    """Read the categories of a file.

    Args:
        records: section `categories` of a COCO-format file.
        where: name of the file in messages.

    Returns:
        Id in the file -> id, which differ beyond 64 bits alone; and id -> name, sorted by id.

    Raises:
        InputError: a record has no integer id, no name, or the id of another.
    """
    what = "have no integer id or no name"
    found = _read_records(
        "categories", records, [("id", what, whole_number), ("name", what, _name)], where
    )
    found.sort(key=lambda category: category["id"])
    ids = [category["id"] for category in found]
    large = any(abs(id_) >= _LARGEST_ID for id_ in ids)
    new_ids: dict[Any, int] = {id_: number if large else id_ for number, id_ in enumerate(ids, 1)}
    names = {new_ids[category["id"]]: category["name"] for category in found}
    while True:
        counts = Counter(names.values())
        same = [id_ for id_, name in names.items() if counts[name] > 1 or not name]
        if not same:
            return new_ids, names
        names.update({id_: f"{names[id_]} (id {id_})".strip() for id_ in same})


def read_json(json_file: str, where: str) -> Any:
    """Return the content of a JSON file in any encoding of Unicode.

    Args:
        json_file: path of the file.
        where: name of the file in messages.

    Raises:
        InputError: the file is missing, empty or no JSON.
    """
    if not os.path.isfile(json_file):
        what = "is a folder" if os.path.isdir(json_file) else "does not exist"
        raise InputError(f"{where}: this file {what}; expected a COCO-format JSON file.")
    try:
        with open(json_file, "rb") as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"{where}: this file cannot be read: {error.strerror}.") from error
    if not content.strip():
        raise InputError(f"{where}: this file is empty; expected a COCO-format JSON file.")
    try:
        return json.loads(content)  # finds out the encoding
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: this file is not valid JSON, which is UTF-8: {error}."
        ) from error
    except (ValueError, RecursionError) as error:
        start = printable(content[:20].decode("latin-1"))
        raise InputError(
            f"{where}: this file is not valid JSON: {error}. It starts with {start!r}."
        ) from error


def _read_sections(json_file: str, where: str) -> dict[str, list[Record]]:
    """Return the content of a file, whose sections are lists of objects."""
    content = read_json(json_file, where)
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
    if not content["categories"]:
        raise InputError(f"{where}: it lists no categories; there is nothing to detect.")
    if not content["images"]:
        raise InputError(f"{where}: it lists no images.")
    return content


def _read_records(
    name: str, records: Sequence[Record], rules: Sequence[_Rule], where: str
) -> list[Record]:
    """Return the values that the rules read, and check that ids differ."""
    found: list[Record] = [{} for _ in records]
    for key, wrong, read in rules:
        for record, values in zip(records, found, strict=True):
            values[key] = read(record.get(key))
        bad = [r for r, values in zip(records, found, strict=True) if values[key] is None]
        if bad:
            show = f" ({key} {{!r}})" if key in _SHOWN else ""
            texts = [f"id {record.get('id')}{show.format(record.get(key))}" for record in bad]
            raise InputError(f"{where}: {len(bad)} {name} {wrong}: {first_few(texts)}.")
        if key == "id":
            counts = Counter(values["id"] for values in found)
            repeated = [id_ for id_, count in counts.items() if count > 1]
            if repeated:
                raise InputError(
                    f"{where}: {len(repeated)} ids of {name} occur more than once: "
                    f"{first_few(repeated)}."
                )
    return found


def _add_mask(annotation: Record, segmentation: Any, image: Record, *, exact: bool) -> None:
    """Add the mask of an annotation, if it has one.

    Args:
        annotation: record to complete; crowds and what is dropped have their box as mask if they
            have none.
        segmentation: value in the file.
        image: record of the image.
        exact: whether to take area and role from the pixels of the mask.

    Raises:
        MaskError: the value is no mask of the image.
    """
    height, width = image["height"], image["width"]
    mask = normalized_mask(segmentation, height, width)
    if mask is None:
        if annotation["role"] == "object":
            return
        x, y, w, h = annotation["bbox"]
        x0, x1 = (min(max(value, 0), width) for value in (x, x + w))
        y0, y1 = (min(max(value, 0), height) for value in (y, y + h))
        mask = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    annotation["segmentation"] = mask
    if exact:
        pixels = int(mask_util.area(to_rle(mask, height, width)))
        annotation["area"] = annotation["area"] or pixels
        if not pixels and annotation["role"] == "object":
            annotation["role"] = "with an empty mask"


def _check_masks(
    faults: Sequence[str], missing: Sequence[str], annotations: Sequence[Record], where: str
) -> None:
    """Refuse objects without a mask and masks that are none."""
    advice = "and this config learns masks: use one without, such as faster_rcnn."
    if faults:
        raise InputError(
            f"{where}: {len(faults)} annotations have a 'segmentation' that is no mask, {advice} "
            f"Offenders: {first_few(faults)}."
        )
    if missing:
        objects = sum(annotation["role"] == "object" for annotation in annotations)
        raise InputError(
            f"{where}: {len(missing)} of {objects} boxes have no 'segmentation', {advice} "
            f"Offenders: {first_few(missing)}."
        )


def _role(annotation: Record, image: Record) -> str:
    """Return what becomes of a box in training, before its mask is known."""
    x, y, w, h = annotation["bbox"]
    if min(w, h) < _LEAST_SIDE:
        return "without area"
    if annotation["iscrowd"]:
        return "crowd"
    inside_w = min(x + w, image["width"]) - max(x, 0)
    inside_h = min(y + h, image["height"]) - max(y, 0)
    return "object" if min(inside_w, inside_h) >= _LEAST_SIDE else "outside of the image"


def whole_number(value: object) -> int | None:
    """Return an integer, also one that is written as `3.0` or as text; None for anything else."""
    if isinstance(value, str) and len(value) < 30 and value.removeprefix("-").isdecimal():
        number = int(value)
        return number if str(number) == value else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _identity(value: object) -> int | str | None:
    """Return an id that is an integer, however it is written, or any other text."""
    number = whole_number(value)
    return number if number is not None or not isinstance(value, str) else value or None


def _side(value: object) -> int | None:
    number = whole_number(value)
    return number if number is not None and 0 < number < 2**31 else None


def _file_name(value: object) -> str | None:
    return value or None if isinstance(value, str) else None


def _any(value: object) -> object:
    return "" if value is None else value


def _name(value: object) -> str | None:
    return printable(value) if isinstance(value, str) else None


def _box(value: object) -> list[float] | None:
    return (
        value
        if isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
        else None
    )


def _flag(value: object) -> int | None:
    return int(bool(value)) if value is None or value in (0, 1) else None


def _area(value: Any) -> float | None:
    if value is None:
        return 0
    return value if is_number(value) and value >= 0 else None


def _no_mark(value: object) -> int | None:
    return None if value else 0
