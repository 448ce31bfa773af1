"""From any folder to the contents of COCO files."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from brloss_d2.data.coco_file import complete_areas, only_files
from brloss_d2.data.fields import Record
from brloss_d2.data.folders import coco, labelme, masks, voc, yolo
from brloss_d2.data.folders.records import Part
from brloss_d2.data.folders.tree import Tree, split_of
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted, first_few, printable

# In the order of preference, if a folder has several.
_FORMATS = (coco, labelme, voc, yolo, masks)
_SPLITS = ("train", "val", "test", "")
_NUMBER_THEIR_CLASSES = (coco.NAME, yolo.NAME)


@dataclass(frozen=True)
class DataFolder:
    """Contents of a folder with images and labels.

    Attributes:
        path: absolute path of the folder.
        format: name of the format that was recognized.
        parts: "train", "val" or "test" -> content; the key is "" if the folder has no splits.
        notes: sentences about what was recognized and what is unusual.
    """

    path: str
    format: str
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()

    def part(self, split: str) -> Part:
        """Return a split, or everything if there are no splits, or only one for training.

        Args:
            split: "train" or "val".

        Raises:
            InputError: the folder has other splits, but not this one.
        """
        names = list(self.parts)
        if split in names:
            return self.parts[split]
        if names in ([""], ["train"]):
            return self.parts[names[0]]
        raise InputError(
            f"{printable(self.path)} has the split{'s' * (len(names) > 1)} {', '.join(names)}, and "
            f"no {split}: name the folder of one of them."
        )

    @property
    def names_classes(self) -> bool:
        """Whether the format has names of classes only, whose numbers are then arbitrary."""
        return self.format not in _NUMBER_THEIR_CLASSES


def read_folder(folder: str, image_root: str | None = None) -> DataFolder:
    """Recognize the format of a folder and read it.

    COCO, LabelMe, Pascal VOC, YOLO, Roboflow's exports of these, and masks in files of their own.

    Args:
        folder: folder of the data, or the data.yaml in it.
        image_root: folder of the images, if it is another.

    Raises:
        InputError: the format is unknown, or files have mistakes; the message names the first ones.
    """
    if folder.endswith((".yaml", ".yml")) and os.path.isfile(folder):
        folder = os.path.dirname(folder)
    if not os.path.exists(folder):
        raise InputError("there is no such folder.")
    if os.path.isfile(folder):
        raise InputError("expected a folder, or the data.yaml in it; this is another file.")
    tree = Tree.below(os.path.abspath(folder), image_root and os.path.abspath(image_root))
    formats = [reader for reader in _FORMATS if reader.recognizes(tree)]
    if not formats:
        endings = Counter(os.path.splitext(file)[1].casefold() or "none" for file in tree.files)
        found = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
        raise InputError(
            f"no labels of a known format (files by ending: {found or 'no files'}). Looked for"
            + "".join(f"\n  {reader.NAME}: {reader.LOOKED_FOR}" for reader in _FORMATS)
        )
    reader, *others = formats
    if reader is coco:
        parts, notes = coco.read(tree)
        parts = {split: parts[split] for split in _SPLITS if split in parts}
    else:
        content, notes = reader.read(tree)
        complete_areas(content)
        parts, more = _by_split(content, tree)
        notes = [*notes, *more]
    found = f"recognized as {reader.NAME}"
    if splits := ", ".join(
        f"{split} ({counted(len(part.content['images']), 'image')})"
        for split, part in parts.items()
        if split and isinstance(part.content, dict) and isinstance(part.content.get("images"), list)
    ):
        found += f" with {splits}"
    notes = [found, *notes]
    notes += [f"there is {other.NAME} too, which is not read" for other in others]
    return DataFolder(tree.folder, reader.NAME, parts, tuple(notes))


def with_names_of(folder: DataFolder, categories: Mapping[int, str]) -> DataFolder:
    """Return contents whose classes have the numbers of other data; further names come after them.

    Args:
        folder: contents of a folder whose format has names of classes only.
        categories: class id -> name of the other data.
    """
    ids = {name: id_ for id_, name in categories.items()}
    parts = {}
    for split, part in folder.parts.items():
        names = {record["id"]: record["name"] for record in part.content["categories"]}
        for name in names.values():
            ids.setdefault(name, max(ids.values(), default=0) + 1)
        annotations = [
            {**record, "category_id": ids[names[record["category_id"]]]}
            for record in part.content["annotations"]
        ]
        records = [{"id": id_, "name": name} for name, id_ in ids.items()]
        content = {**part.content, "annotations": annotations, "categories": records}
        parts[split] = replace(part, content=content)
    return replace(folder, parts=parts)


def _by_split(content: Record, tree: Tree) -> tuple[dict[str, Part], list[str]]:
    """Return the parts of a content, by the folders of the images unless their records say more."""
    if not content["images"]:
        raise InputError("it has no image with labels.")
    names = defaultdict(set)
    for image in content["images"]:
        split = image.pop("split", None) or split_of(image["file_name"])
        names[split].add(image["file_name"])
    notes = []
    unused = [split for split in ("", "none") if split in names]
    if len(names) > len(unused):
        left_out = sum(len(names.pop(split)) for split in unused)
        notes += [f"{counted(left_out, 'image')} of no split, left out"] if left_out else []
    parts = {
        split: Part(only_files(content, names[split]), tree.image_root)
        for split in (*_SPLITS, "none")
        if split in names
    }
    labels = Counter(record["name"].casefold() for record in content["categories"])
    same = [r["name"] for r in content["categories"] if labels[r["name"].casefold()] > 1]
    if len(set(same)) < len(same):
        notes.append(f"several classes have one name: {first_few(same)}")
    elif same:
        notes.append(f"classes differ in the case of their letters only: {first_few(same)}")
    return parts, notes
