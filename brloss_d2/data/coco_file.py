"""The one reading of a COCO-format JSON file.

The check before training, the loader and the evaluator all work from what `read_coco` returns, so
that they cannot disagree about a field.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from brloss_d2.data import fields
from brloss_d2.data.fields import Record, Rule, is_number, name_of, read_records
from brloss_d2.data.masks import MaskError, count_pixels, normalized_mask
from brloss_d2.errors import InputError
from brloss_d2.utils.files import kind_of_content, what_instead
from brloss_d2.utils.suggest import did_you_mean
from brloss_d2.utils.text import first_few, printable

DROPPED = ("without area", "outside of the image", "with an empty mask")
_BOX = "bbox of 4 finite numbers [x, y, w, h]"
_SECTIONS = ("images", "annotations", "categories")
_LEAST_SIDE = 1e-4  # pixels; detectron2 drops a box that is not wider after the augmentation
_LARGEST_ID = 2**63  # exclusive; pycocotools keeps ids in 64 bits
_LARGEST_AREA = 1e10  # pixels; the COCO protocol leaves larger objects out
_DETAILS = 2  # number of different details that a message shows
_ADVICE = "This config learns masks: correct them, or use a config without, such as faster_rcnn."
_AS_COCO = "export the annotations as COCO"
# Keys of other formats, in the first object of the file.
_OTHER_FORMATS = {
    ("image_id", "score"): "These are detections, not annotations",
    ("data", "annotations"): f"It is of Label Studio: {_AS_COCO}",
    ("shapes", "imagePath"): f"It is of labelme, for one image: {_AS_COCO}",
    ("_via_img_metadata",): f"It is a project of VIA: {_AS_COCO}",
    ("items", "categories"): f"It is of Datumaro: {_AS_COCO}",
}
# Values of annotations, in the order of their checks.
_RULES: tuple[Rule, ...] = (
    ("bbox", f"have no {_BOX}, but text: write numbers", fields.not_text),
    ("bbox", f"have no {_BOX}", fields.box),
    (
        "bbox",
        "have a negative width or height: [x, y] has to be the upper left corner",
        fields.upright_box,
    ),
    ("iscrowd", "have an iscrowd that is none of 0, 1, true, false and null", fields.flag),
    (
        "area",
        "have an area that is no finite number >= 0 (pixels): correct or remove it",
        fields.area,
    ),
    # detectron2 and pycocotools do not agree about them.
    (
        "ignore",
        "are marked 'ignore', which is not supported: remove the mark or the annotations",
        fields.no_mark,
    ),
)
# What is wrong with boxes that are refused, and a sentence to follow.
_REFUSED = {
    "area": ("have an area (pixels) larger than their image and box", "Correct it, or remove it."),
    "mask": ("have a 'segmentation' that is no mask", _ADVICE),
    "no mask": ("have no 'segmentation'", _ADVICE),
}
_ODD = {
    "area 0": "have area 0, and the evaluation takes that of their mask or box",
    "area beyond box": "have an area larger than their box",
    "rotated": "are rotated (attributes.rotation), and read as if they were not",
    "area of fractions": "have an area below a pixel, and the evaluation takes them as small",
}


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
        annotated: whether the file has a list of annotations, which may be empty.
    """

    categories: dict[int, str]
    images: list[Record]
    annotations: list[Record]
    notes: tuple[str, ...]
    annotated: bool = True


def read_coco(
    json_file: str,
    *,
    content: Any = None,
    masks: bool | None = None,
    where: str | None = None,
    evaluation: bool = False,
    unannotated: bool = False,
) -> CocoFile:
    """Read a COCO-format file and give each field its one meaning.

    Integers may be written as text or as whole floats. Ids of images that are other text, and all
    ids beyond 64 bits, become numbers from 1. A missing `iscrowd` is 0; an `area` that is missing
    or 0 is that of the mask, if masks are asked for, or of the box. Linear in images and
    annotations.

    Args:
        json_file: path of the annotations, in UTF-8, UTF-16 or UTF-32.
        content: content of the file, if it has been read; not changed.
        masks: whether every object needs a mask; False does not look at `segmentation`, and None
            keeps the masks that are good.
        where: name of the file in messages; its path by default.
        evaluation: whether to leave out what no evaluation reads: names of files and ids of
            annotations, which may then be missing.
        unannotated: whether the list of annotations may be missing, as in the files of test sets
            whose annotations are kept by a server.

    Raises:
        InputError: the file has a mistake; the message names the first offenders of its kind.
    """
    where = where or printable(json_file)
    content = read_json(json_file, where) if content is None else content
    sections = _check_sections(content, where, unannotated=unannotated)
    labels, categories = read_category_section(sections["categories"], where)
    images, image_of, notes = _read_images(sections["images"], where, evaluation=evaluation)
    rules: list[Rule] = [
        (
            "image_id",
            f"belong to images that the file does not list ({_shown_ids(image_of)})",
            lambda value: image_of.get(fields.identity(value)),
        ),
        (
            "category_id",
            f"name categories that the file does not list ({_shown_ids(labels)})",
            lambda value: labels.get(fields.identity(value)),
        ),
        *_RULES,
    ]
    if not evaluation:
        rules.insert(0, ("id", "have no integer id: number them from 1", fields.identity))
    written = sections.get("annotations", [])
    annotations = read_records("annotations", written, rules, where)
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for number, (record, annotation) in enumerate(zip(written, annotations, strict=True), 1):
        image = annotation["image_id"]
        annotation["image_id"] = image["id"]
        for kind, detail in _complete(annotation, record, image, masks):
            found[kind][detail].append(name_of(record, number))
    for kind, (what, advice) in _REFUSED.items():
        if kind in found:
            raise InputError(
                f"{where}: {_offenders(found[kind], len(annotations), what)}. {advice}"
            )
    notes += [
        _offenders(found[kind], len(annotations), what)
        for kind, what in _ODD.items()
        if kind in found
    ]
    annotated = "annotations" in sections
    return CocoFile(categories, images, annotations, tuple(notes), annotated)


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
    rules: list[Rule] = [
        ("id", "have no integer id", fields.whole_number),
        ("name", "have no name that is text", fields.class_name),
    ]
    found = read_records("categories", records, rules, where)
    found.sort(key=lambda category: category["id"])
    ids = [category["id"] for category in found]
    large = any(abs(id_) >= _LARGEST_ID for id_ in ids)
    new_ids: dict[Any, int] = {id_: number if large else id_ for number, id_ in enumerate(ids, 1)}
    names = {new_ids[category["id"]]: category["name"] for category in found}
    while True:
        counts = Counter(names.values())
        same = [id_ for id_, name in names.items() if counts[name] > 1 or not name.strip()]
        if not same:
            return new_ids, names
        names.update({id_: f"{names[id_].strip()} (id {id_})".lstrip() for id_ in same})


def read_json(json_file: str, where: str) -> Any:
    """Return the content of a JSON file in any encoding of Unicode.

    Args:
        json_file: path of the file.
        where: name of the file in messages.

    Raises:
        InputError: the file is missing, empty or no JSON.
    """
    if not os.path.isfile(json_file):
        what = f"this file {what_instead(json_file)}"
        if not os.path.lexists(json_file) and any(mark in json_file for mark in ",*["):
            what += " (several files have to be merged into one)"
        raise InputError(f"{where}: {what}; expected a COCO-format JSON file.")
    try:
        with open(json_file, "rb") as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"{where}: this file cannot be read: {error.strerror}.") from error
    if not content.strip():
        raise InputError(f"{where}: this file is empty; expected a COCO-format JSON file.")
    try:
        return json.loads(content, object_pairs_hook=_unique)  # finds out the encoding
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: this file is not valid JSON, which is UTF-8: {error}."
            f"{_impostor(content) or ' Save it as UTF-8.'}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: this file is not valid JSON: nested too deeply.") from error
    except ValueError as error:
        start = printable(content[:20].decode("latin-1"))
        too_long = "set_int_max_str_digits" in str(error)
        cause = "a number has thousands of digits" if too_long else error
        raise InputError(
            f"{where}: this file is not valid JSON: {cause}. It starts with {start!r}."
            f"{_impostor(content)}"
        ) from error


def _impostor(content: bytes) -> str:
    """Return a sentence about what a file is that is no JSON in Unicode."""
    kind, cure = kind_of_content(content[:512], "JSON")
    return f" It is {kind}: {cure}." if kind not in ("", "JSON") else ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, whose keys have one value each; `json` would keep the last one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if value != found[key]:
                raise ValueError(
                    f"the key {printable(repr(key), length=80)} occurs twice, with different values"
                )
    return found


def _check_sections(content: Any, where: str, *, unannotated: bool) -> dict[str, list[Record]]:
    """Return the content of a file, whose sections are lists of objects."""
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: not COCO format: expected an object with the keys {', '.join(_SECTIONS)}, "
            f"got a {type(content).__name__}.{_other_format(content)}"
        )
    sections = [name for name in _SECTIONS if name in content]
    optional = ["annotations"] if unannotated else []
    missing = ", ".join(name for name in _SECTIONS if name not in [*sections, *optional])
    if missing:
        got = printable(", ".join(content) or "none", length=80)
        raise InputError(
            f"{where}: not COCO format: no key {missing} (keys found: {got})."
            f"{_other_format([content])}"
        )
    for name in sections:
        records = content[name]
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(f"{where}: not COCO format: {name!r} is not a list of objects.")
    if any("segments_info" in record for record in content.get("annotations", [])):
        raise InputError(
            f"{where}: it is of panoptic segmentation: {_AS_COCO} with a bbox for each object."
        )
    if not content["categories"]:
        raise InputError(f"{where}: it lists no categories; there is nothing to detect.")
    if not content["images"]:
        raise InputError(f"{where}: it lists no images.")
    return content


def _other_format(content: Any) -> str:
    """Return a sentence about the format of a list of JSON objects that is not COCO."""
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict):
        return ""
    formats = [what for keys, what in _OTHER_FORMATS.items() if first.keys() >= set(keys)]
    return "".join(f" {what}." for what in formats[:1])


def only_files(content: Record, names: Container[str]) -> Record:
    """Return the part of a checked file about some of its images, as it is written.

    Args:
        content: content of a COCO-format file.
        names: values of `file_name` of the images to keep.
    """
    images = [record for record in content["images"] if record["file_name"] in names]
    ids = {fields.identity(record["id"]) for record in images}
    annotations = [r for r in content["annotations"] if fields.identity(r["image_id"]) in ids]
    return {**content, "images": images, "annotations": annotations}


def only_classes(content: Record, names: Collection[str]) -> Record:
    """Return a checked file with some of its classes; all images stay, the others as background.

    Args:
        content: content of a COCO-format file.
        names: names of the classes to keep.

    Raises:
        InputError: there is no class of that name.
    """
    known = [record["name"] for record in content["categories"]]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" Its classes: {first_few(known)}."
            raise InputError(f"There is no class {printable(name)}.{hint}")
    categories = [record for record in content["categories"] if record["name"] in names]
    ids = {fields.identity(record["id"]) for record in categories}
    annotations = [r for r in content["annotations"] if fields.identity(r["category_id"]) in ids]
    return {**content, "categories": categories, "annotations": annotations}


def complete_areas(content: Record) -> None:
    """Give each annotation without an `area` that of its mask, or of its box, in square pixels.

    pycocotools does not evaluate annotations without it.

    Args:
        content: content of a COCO-format file, changed in place.
    """
    images = {image["id"]: image for image in content["images"]}
    for item in content["annotations"]:
        sides = [images[item["image_id"]][side] for side in ("height", "width")]
        try:
            mask = normalized_mask(item.get("segmentation"), *sides)
        except MaskError:  # told to those who learn masks
            mask = None
        _fill_area(item, 0 if mask is None else count_pixels(mask, *sides))


def _fill_area(annotation: Record, pixels: int) -> None:
    """Give an annotation whose area is missing or 0 that of its mask, or else of its box."""
    _, _, w, h = annotation["bbox"]
    annotation["area"] = min(annotation.get("area") or pixels or w * h, _LARGEST_AREA)


def _shown_ids(ids: Collection[object]) -> str:
    return f"its ids are {first_few([repr(id_) for id_ in islice(ids, 4)], count=3)}"


def _offenders(names: Mapping[str, Sequence[str]], total: int, what: str) -> str:
    """Return how many of all boxes are concerned, and the first of those with the same detail."""
    first = [first_few(same) + detail for detail, same in names.items()]
    count = sum(map(len, names.values()))
    return f"{count} of {total} boxes {what}: {'; '.join(first[:_DETAILS])}"


def _read_images(
    records: Sequence[Record], where: str, *, evaluation: bool
) -> tuple[list[Record], Mapping[Any, Record], list[str]]:
    """Return the images, the images by their ids in the file, and notes."""
    wrong = "have no positive height and width (pixels)"
    rules: list[Rule] = [
        ("id", "have no integer id", fields.identity),
        ("height", wrong, fields.side),
        ("width", wrong, fields.side),
    ]
    if not evaluation:
        rules.insert(1, ("file_name", "have no file_name that is text", fields.file_name))
    images = read_records("images", records, rules, where)
    by_id = {image["id"]: image for image in images}
    if evaluation:
        for record, image in zip(records, images, strict=True):
            image["file_name"] = record.get("file_name")
    if all(isinstance(id_, int) and abs(id_) < _LARGEST_ID for id_ in by_id):
        return images, by_id, []
    for number, image in enumerate(images, 1):
        image["id"] = number
    note = "ids of images are text or beyond 64 bits, and results number the images from 1"
    return images, by_id, [note]


def _complete(
    annotation: Record, record: Record, image: Record, masks: bool | None
) -> Iterator[tuple[str, str]]:
    """Add role, area, mask and keypoints to the values that were read of a record.

    Yields the keys of `_REFUSED` and `_ODD` that apply, each with a detail for the message.
    """
    x, y, w, h = annotation["bbox"]
    left, right = (min(max(value, 0), image["width"]) for value in (x, x + w))
    top, bottom = (min(max(value, 0), image["height"]) for value in (y, y + h))
    if annotation["iscrowd"]:
        annotation["role"] = "crowd"
    elif min(w, h) < _LEAST_SIDE:
        annotation["role"] = "without area"
    else:
        inside = min(right - left, bottom - top) >= _LEAST_SIDE
        annotation["role"] = "object" if inside else "outside of the image"
    attributes = record.get("attributes")
    if isinstance(attributes, dict) and attributes.get("rotation"):
        yield "rotated", ""
    points = record.get("keypoints")
    if isinstance(points, list) and len(points) % 3 == 0 and all(map(is_number, points)):
        annotation["keypoints"] = points
        annotation["num_keypoints"] = sum(seen > 0 for seen in points[2::3])
    box_area = w * h
    largest = 1.1 * (w + 1) * (h + 1)  # the pixels of a mask reach beyond the box of its corners
    if annotation["area"] > 1.01 * max(box_area, image["height"] * image["width"]) + 1:
        yield "area", f" (area {annotation['area']})"
    elif annotation["role"] == "object" and annotation["area"] > largest:
        yield "area beyond box", ""
    elif annotation["role"] == "object" and record.get("area") == 0:
        yield "area 0", ""
    elif annotation["role"] == "object" and 0 < annotation["area"] < min(1, box_area / 10):
        yield "area of fractions", ""
    pixels = 0
    if masks is not False:
        inside_box = [left, top, right, top, right, bottom, left, bottom]
        pixels = yield from _add_mask(annotation, record, image, inside_box, needed=bool(masks))
    _fill_area(annotation, pixels)


def _add_mask(
    annotation: Record, record: Record, image: Record, box: list[float], *, needed: bool
) -> Generator[tuple[str, str], None, int]:
    """Add a mask to an annotation; if it is needed, count its pixels, without which it is dropped.

    The polygon `box` is the mask of crowds and of what is dropped if they have none, since
    pycocotools needs one. Yields what `_complete` yields; returns the pixels, 0 if not needed.
    """
    try:
        mask = normalized_mask(record.get("segmentation"), image["height"], image["width"])
    except MaskError as error:
        if needed:
            yield "mask", f" ({error})"
        return 0
    if mask is None:
        if annotation["role"] == "object":
            if needed:
                yield "no mask", ""
            return 0
        mask = [box]
    annotation["segmentation"] = mask
    if not needed:
        return 0
    pixels = count_pixels(mask, image["height"], image["width"])
    if annotation["role"] == "object" and not pixels:
        annotation["role"] = "with an empty mask"
    return pixels
