"""Folders with annotation files of COCO, those of Roboflow among them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from brloss_d2.data.coco_file import read_json
from brloss_d2.data.fields import Record
from brloss_d2.data.file_names import locate_images
from brloss_d2.data.folders.records import Part
from brloss_d2.data.folders.tree import Tree, split_of
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable

NAME = "COCO"
LOOKED_FOR = (
    "a COCO file per split (annotations/instances_train.json, train/_annotations.coco.json)"
)
_SECTIONS = ('"images"', '"annotations"', '"categories"')
_SAMPLE = 5  # number of images that tell the folder of all


def recognizes(tree: Tree) -> bool:
    """Return whether a folder has a COCO file."""
    return bool(_files(tree))


def read(tree: Tree) -> tuple[dict[str, Part], list[str]]:
    """Return the parts of a folder by split, and notes.

    The first category of Roboflow's files, which is the group of all others and has no objects, is
    left out.

    Args:
        tree: files of the folder.

    Raises:
        InputError: a file is damaged, a split has several, or the classes of the files differ.
    """
    by_split = defaultdict(list)
    for file in _files(tree):
        words = os.path.splitext(file)[0].replace("_", "/").replace("-", "/")
        by_split[split_of(f"{words}/")].append(file)
    found = {}
    for split, files in by_split.items():
        if len(files) > 1:
            raise InputError(f"it has several COCO files: {first_few(files)}: name one of them")
        file = tree.path(files[0])
        content = read_json(file, printable(file))
        found[split] = Part(content, _image_root(tree, files[0], split, content), file)
    group = _unused_group([part.content for part in found.values()])
    if group is None:
        return found, []
    for split, part in found.items():
        others = [record for record in part.content["categories"] if record != group]
        found[split] = Part({**part.content, "categories": others}, part.image_root)
    return found, [f"the class {printable(group['name'])} is the group of all others: left out"]


def _files(tree: Tree) -> list[str]:
    """Return the files with boxes; not those with captions and the like of the same images."""
    files = [file for file in tree.ending(".json") if tree.contains(file, *_SECTIONS)]
    boxes = [file for file in files if os.path.basename(file).startswith("instances")]
    return boxes or files


def _image_root(tree: Tree, file: str, split: str, content: Record) -> str:
    """Return the folder that the names of images are relative to; that of the file if none is."""
    own = os.path.dirname(file)
    images = content.get("images") if isinstance(content, dict) else None
    if isinstance(images, list) and all(isinstance(image, dict) for image in images):
        names = [str(image.get("file_name")) for image in images[:_SAMPLE]]
        others = [folder for folder in tree.image_folders if split_of(f"{folder}/") == split]
        for folder in dict.fromkeys((own, "", *others, *tree.image_folders)):
            if all(locate_images(names, os.path.join(tree.image_root, folder))):
                return os.path.normpath(os.path.join(tree.image_root, folder))
    return os.path.normpath(os.path.join(tree.folder, own))


def _unused_group(contents: Sequence[Record]) -> Record | None:
    """Return the category without objects that names the group of all others, if there is one."""
    sections: list[Any] = [c.get("categories") for c in contents if isinstance(c, dict)]
    if len(sections) < len(contents) or not all(
        isinstance(s, list) and s and all(isinstance(c, dict) for c in s) for s in sections
    ):
        return None  # the check of the file says what is wrong
    first, *others = sections[0]
    records = (record for content in contents for record in content.get("annotations") or ())
    used = {record.get("category_id") for record in records if isinstance(record, dict)}
    if (
        others
        and first.get("id") not in used
        and all(section[0] == first for section in sections)
        and all(record.get("supercategory") == first.get("name") for record in others)
    ):
        return first
    return None
