"""Folders in the format of Pascal VOC: an XML file per image."""

import os
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from brloss_d2.data.fields import Record
from brloss_d2.data.folders.records import Problems, numbered
from brloss_d2.data.folders.tree import Tree, has_all
from brloss_d2.data.masks import mask_box
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few

NAME = "Pascal VOC"
LOOKED_FOR = "an XML file per image (Annotations/*.xml, or next to the images)"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDE = re.compile(r"0*[1-9]\d{0,8}")  # of an image that may exist, in pixels


def recognizes(tree: Tree) -> bool:
    """Return whether a folder has an XML file of Pascal VOC."""
    return any(tree.contains(file, "<annotation") for file in tree.ending(".xml"))


def read(tree: Tree) -> tuple[Record, list[str]]:
    """Return the content of a folder as that of a COCO file, and notes.

    Classes are numbered from 1 in the order of their names. Pixels count from 1, as in VOC, unless
    a box of the folder starts at 0. Objects marked `difficult` become crowds, which neither
    training nor evaluation counts, as in VOC. Polygons of Roboflow's export are read, masks of
    `SegmentationObject` are not.

    Args:
        tree: files of the folder.

    Raises:
        InputError: files have mistakes; the message names the first ones.
    """
    problems = Problems("XML files")
    found: list[tuple[str, list[Record]]] = []
    declared = {}
    for file in tree.ending(".xml"):
        with problems.about(file):
            content = tree.read_bytes(file)
            if has_all(content, "<!ENTITY"):
                raise InputError("it declares entities, which labels do not need")
            try:
                root = ElementTree.fromstring(content)  # noqa: S314
            except (ElementTree.ParseError, ValueError, LookupError) as error:
                raise InputError(f"its XML cannot be read: {error}") from error
            if root.tag != "annotation":
                continue
            objects = [_read_object(node) for node in root.iter("object")]
            name = (root.findtext("filename") or "").strip()
            image = tree.image_of(file, name)
            if image is None:
                raise InputError(f"its image {name or 'of the same name'} is missing")
            problems.check_alone(image, file)
            found.append((image, objects))
            sides = [root.findtext(f"size/{side}") or "" for side in ("width", "height")]
            if all(_SIDE.fullmatch(side) for side in sides):
                declared[image] = (int(sides[0]), int(sides[1]))
    problems.refuse(len(found))
    first = 1.0
    if any(min(o["corners"][:2]) < 1 for _, objects in found for o in objects):
        first = 0.0
    for _, objects in found:
        for item in objects:
            x0, y0, x1, y1 = item.pop("corners")
            item["bbox"] = [x0 - first, y0 - first, x1 - x0 + first, y1 - y0 + first]
    coco = numbered(tree, found, declared=declared)
    listed = _image_sets(tree)
    for image in coco["images"]:
        stem = os.path.splitext(os.path.basename(image["file_name"]))[0]
        if stem in listed:
            image["split"] = listed.pop(stem)
    if not listed:
        return coco, []
    return coco, [f"ImageSets lists {len(listed)} more without labels: {first_few([*listed])}"]


def _read_object(node: ElementTree.Element) -> Record:
    """Return class, corners (of the file, pixels), polygon and `iscrowd` of an object."""
    name = (node.findtext("name") or "").strip()
    if not name:
        raise InputError("an object has no name")
    found: dict[str, Any] = {"class": name}
    polygon = list(_polygon(node.find("polygon")))
    box = node.find("bndbox")
    if box is None and not polygon:
        raise InputError(f"an object ({name}) has no bndbox")
    try:
        if box is not None:
            found["corners"] = [float(box.findtext(corner) or "") for corner in _CORNERS]
    except ValueError as error:
        raise InputError(f"bndbox of {name}: expected the numbers {', '.join(_CORNERS)}") from error
    if polygon:
        found["segmentation"] = [polygon]
        x, y, w, h = mask_box([polygon])
        found.setdefault("corners", [x, y, x + w, y + h])
    x0, y0, x1, y1 = found["corners"]
    if not (x0 <= x1 and y0 <= y1):
        raise InputError(f"bndbox of {name}: {x0:g}, {y0:g}, {x1:g}, {y1:g}: max is below min")
    if (node.findtext("difficult") or "0").strip() not in ("", "0"):
        found["iscrowd"] = 1
    return found


def _polygon(node: ElementTree.Element | None) -> Iterator[float]:
    """Yield x1, y1, x2, y2, ... of an element with children of these names."""
    number = 1
    while node is not None and node.find(f"x{number}") is not None:
        for axis in "xy":
            try:
                yield float(node.findtext(f"{axis}{number}") or "")
            except ValueError as error:
                raise InputError(f"polygon: {axis}{number} is no number") from error
        number += 1


def _image_sets(tree: Tree) -> dict[str, str]:
    """Return name of an image without ending -> split, of the lists in ImageSets/Main."""
    lists = {}
    for file in tree.files:
        folder, name = os.path.split(file)
        if folder.endswith("ImageSets/Main"):
            lists[os.path.splitext(name)[0]] = file
    if "train" not in lists and "val" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
    found: dict[str, str] = {}
    for split in ("test", "val", "train"):
        if split in lists:
            lines = tree.lines(lists[split])
            found.update({line.split()[0]: split for line in lines if line.strip()})
    return found
