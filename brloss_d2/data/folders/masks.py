"""Folders of masks, one file per object."""

import os
import re

import numpy as np

from brloss_d2.data.fields import Record
from brloss_d2.data.folders.records import Problems, mask_record, numbered
from brloss_d2.data.folders.tree import Tree, is_image
from brloss_d2.data.images import opened_image
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted, first_few

NAME = "one mask per object"
LOOKED_FOR = (
    "a mask image per object (masks/NAME/1.png or masks/CLASS/NAME_1.png for images/NAME.jpg, or "
    "NAME/masks/*.png)"
)
_ONE_CLASS = "object"
_NUMBERED = re.compile(r"([^\W\d][^\d]*?)[_\- ]?\d+")  # cat_1


def recognizes(tree: Tree) -> bool:
    """Return whether a folder has mask images, and images apart from them."""
    masks = [image for image in tree.images if _is_mask(image)]
    return 0 < len(masks) < len(tree.images)


def read(tree: Tree) -> tuple[Record, list[str]]:
    """Return the content of a folder as that of a COCO file, and notes.

    A mask is 0 where its object is not, and one other value where it is. Its class is its folder
    (masks/CLASS/NAME_1.png), or the word before the number of its file (masks/NAME/CLASS_1.png), or
    else "object". Classes are numbered from 1 in the order of their names.

    Args:
        tree: files of the folder.

    Raises:
        InputError: files have mistakes; the message names the first ones.
    """
    stems = {_stem(image): image for image in tree.images if not _is_mask(image)}
    if len(stems) < sum(not _is_mask(image) for image in tree.images):
        raise InputError("several images have the same name, so that masks may be of any of them")
    problems = Problems("masks")
    found: dict[str, list[Record]] = {image: [] for image in stems.values()}
    good = 0
    for file in filter(is_image, tree.files):
        if _is_mask(file):
            with problems.about(file):
                image, name = _whose(file, stems)
                found[image].append({"class": name, **mask_record(_read(tree.path(file)))})
                good += 1
    problems.refuse(good)
    sizes = {
        image: tuple(objects[0]["segmentation"]["size"][::-1])
        for image, objects in found.items()
        if objects
    }
    content = numbered(tree, [item for item in found.items() if item[1]], declared=sizes)
    bare = [image for image, objects in found.items() if not objects]
    notes = [f"{counted(len(bare), 'image')} without masks, left out: {first_few(bare)}"]
    return content, notes if bare else []


def _is_mask(path: str) -> bool:
    return any(part in ("masks", "mask") for part in path.casefold().split("/")[:-1])


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _whose(file: str, stems: dict[str, str]) -> tuple[str, str]:
    """Return the image of a mask and the name of its class."""
    folders, stem = file.split("/")[:-1], _stem(file)
    above = [part for part in folders if part in stems]
    if above:  # masks/NAME/CLASS_1.png, NAME/masks/*.png
        word = _NUMBERED.fullmatch(stem)
        return stems[above[-1]], word[1].rstrip("_- ") if word else _ONE_CLASS
    ends = [end for end in range(len(stem), 0, -1) if end == len(stem) or stem[end] in "_-."]
    name = next((stem[:end] for end in ends if stem[:end] in stems), None)
    if name is None:
        raise InputError("its image is missing: none has the name of its folder or its start")
    at = next(i for i, part in enumerate(folders) if part.casefold() in ("masks", "mask"))
    return stems[name], folders[at + 1] if folders[at + 1 :] else _ONE_CLASS


def _read(path: str) -> np.ndarray:
    with opened_image(path) as image:
        pixels = np.asarray(image.convert("L") if len(image.getbands()) > 1 else image)
        if image.has_transparency_data and pixels.min() == pixels.max():  # drawn by the alpha alone
            pixels = np.asarray(image.convert("RGBA"))[..., 3]
    values = np.unique(pixels)
    if len(values) > 2:
        raise InputError(
            f"it has {len(values)} values: expected 0 and one other, and a file per object"
        )
    return pixels > 0
