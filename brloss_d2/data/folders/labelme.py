"""Folders in the format of LabelMe: a JSON file of shapes per image."""

import base64
import binascii
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import cos, hypot, pi, sin
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from brloss_d2.data.coco_file import read_json
from brloss_d2.data.fields import Record, is_number
from brloss_d2.data.folders.records import Problems, mask_record, numbered
from brloss_d2.data.folders.tree import Tree
from brloss_d2.data.masks import mask_box
from brloss_d2.errors import InputError
from brloss_d2.utils.text import printable

NAME = "LabelMe"
LOOKED_FOR = "a JSON file of LabelMe per image (shapes, imagePath)"
_KEYS = ('"shapes"', '"imagePath"')
_KINDS = ("polygon", "rectangle", "circle", "mask")
_CORNERS = 64  # of the polygon of a circle


def recognizes(tree: Tree) -> bool:
    """Return whether a folder has a JSON file of LabelMe."""
    return any(tree.contains(file, *_KEYS) for file in tree.ending(".json"))


def read(tree: Tree) -> tuple[Record, list[str]]:
    """Return the content of a folder as that of a COCO file, and notes.

    Classes are numbered from 1 in the order of their names. Polygons, rectangles, circles and masks
    are objects, other shapes are none; shapes of one label and `group_id` are one object.

    Args:
        tree: files of the folder.

    Raises:
        InputError: files have mistakes; the message names the first ones.
    """
    problems = Problems("JSON files")
    found, declared = [], {}
    others: Counter[str] = Counter()
    for file in tree.ending(".json"):
        with problems.about(file):
            # One that is cut off has lost its last keys.
            if not tree.contains(file, '"shapes"') and tree.image_of(file) is None:
                continue
            try:
                content = read_json(tree.path(file), file)
            except InputError as error:
                raise InputError(str(error).removeprefix(f"{file}: ")) from error
            if not isinstance(content, dict) or "shapes" not in content:
                continue
            name = str(content.get("imagePath") or "")
            image = tree.image_of(file, name)
            if image is None:
                raise InputError(f"its image {name or 'of the same name'} is missing")
            problems.check_alone(image, file)
            width, height = content.get("imageWidth"), content.get("imageHeight")
            if isinstance(width, int) and isinstance(height, int):
                declared[image] = (width, height)
            shapes = content["shapes"]
            found.append((image, list(_objects(shapes, declared.get(image)))))
            others.update(shape["shape_type"] for shape in shapes if _kind(shape) not in _KINDS)
    problems.refuse(len(found))
    kinds = ", ".join(f"{count} {printable(kind, length=20)}" for kind, count in others.items())
    notes = [f"shapes that are no objects, left out: {kinds}"] if kinds else []
    if notes and not any(objects for _, objects in found):
        raise InputError(notes[0])
    return numbered(tree, found, declared=declared), notes


def _objects(shapes: Any, size: tuple[int, int] | None) -> Iterator[Record]:
    """Yield objects with class, box and polygons or mask."""
    if not isinstance(shapes, list):
        raise InputError(f"shapes is no list, but {printable(repr(shapes), length=40)}")
    groups = defaultdict(list)
    for number, shape in enumerate(shapes):
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"shape {number + 1} has no label that is text")
        group = shape.get("group_id")
        groups[shape["label"], ("alone", number) if group is None else ("group", group)].append(
            shape
        )
    for (label, _), parts in groups.items():
        masks = [part for part in parts if _kind(part) == "mask"]
        polygons = [p for part in parts if (p := _polygon(part))]
        if masks:
            yield {"class": label, **_merged(masks, polygons, size)}
        elif polygons:
            yield {"class": label, "bbox": mask_box(polygons), "segmentation": polygons}


def _kind(shape: Record) -> Any:
    return shape.get("shape_type") or "polygon"


def _polygon(shape: Record) -> list[float]:
    """Return the polygon of a shape; none for masks and for what is no object."""
    kind, points = _kind(shape), shape.get("points")
    label = printable(shape["label"], length=40)
    if kind == "mask" or kind not in _KINDS:
        return []
    pairs = points if isinstance(points, list) else []
    least = 3 if kind == "polygon" else 2
    if len(pairs) < least or not all(
        isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in pairs
    ):
        raise InputError(f"{kind} of {label}: expected at least {least} points [x, y]")
    if kind == "polygon":
        return [float(number) for pair in pairs for number in pair]
    (x0, y0), (x1, y1) = pairs[0], pairs[-1] if len(pairs) == 2 else pairs[2]
    if kind == "rectangle":
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    radius = hypot(x1 - x0, y1 - y0)
    angles = [2 * pi * corner / _CORNERS for corner in range(_CORNERS)]
    return [c for a in angles for c in (x0 + radius * cos(a), y0 + radius * sin(a))]


def _merged(
    masks: Sequence[Record], polygons: Sequence[Sequence[float]], size: tuple[int, int] | None
) -> Record:
    """Return box and mask of an object that is drawn with a brush, and perhaps with polygons."""
    if size is None:
        raise InputError("a mask needs imageWidth and imageHeight")
    canvas = np.zeros(size[::-1], dtype=bool)
    for shape in masks:
        try:
            (x0, y0), _ = shape["points"]
            image = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            part = np.asarray(image.convert("L")) > 0
            top, left = round(y0), round(x0)
            canvas[top : top + part.shape[0], left : left + part.shape[1]] |= part
        except (KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
            raise InputError(
                f"mask of {printable(shape['label'], length=40)}: expected two points, and a PNG "
                "in base64 that fits into the image there"
            ) from error
    if polygons:
        rle = mask_util.merge(mask_util.frPyObjects([*map(list, polygons)], *canvas.shape))
        canvas |= mask_util.decode(rle).astype(bool)
    return mask_record(canvas)
