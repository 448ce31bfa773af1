"""Checks of a COCO-format JSON file and its images before training starts.

detectron2 and pycocotools report the mistakes below as `KeyError`, as `AssertionError` or not at
all, some of them only after hours, when the first evaluation starts. Here each is one sentence.
"""

import os
from collections import Counter
from dataclasses import dataclass, field

from brloss_d2.data.coco_file import DROPPED, CocoFile, read_coco
from brloss_d2.data.file_names import locate_all_images
from brloss_d2.data.geometry import geometry_notes
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable


@dataclass(frozen=True)
class CocoSummary:
    """Contents of a checked COCO-format file.

    Attributes:
        json_file: absolute path of the JSON file.
        image_root: absolute path of the folder that its file names are relative to.
        categories: category id -> name, sorted by id; names are printable and differ.
        images: number of images.
        annotations: number of annotations of any kind.
        crowd: number of annotations that mark a crowd; they are ignored in training and
            evaluation.
        images_without_objects: number of images without any box to train on.
        objects: category id -> number of boxes to train on.
        dropped: kind of `DROPPED` -> number of boxes that are never trained on. The evaluation
            counts them as objects.
        most_objects: largest number of boxes to train on in an image.
        image_sizes: path of each image -> width and height in the file, in pixels.
        has_rle: whether masks are learned and some are RLE, not polygons.
        notes: sentences about what is unusual, for the log.
    """

    json_file: str
    image_root: str
    categories: dict[int, str]
    images: int
    annotations: int
    crowd: int
    images_without_objects: int
    objects: dict[int, int]
    dropped: dict[str, int]
    most_objects: int
    image_sizes: dict[str, tuple[int, int]] = field(repr=False)
    has_rle: bool = False
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of categories, at least 1."""
        return len(self.categories)

    @property
    def boxes(self) -> int:
        """Number of boxes to train on: with area in their image and not a crowd."""
        return sum(self.objects.values())


def check_coco_json(
    json_file: str, image_root: str, *, key: str = "data.train", masks: bool = False
) -> CocoSummary:
    """Read a COCO-format file, check all of it and the presence of its images.

    Reads the JSON and lists the folders; opens no image. Linear in images and annotations.

    Args:
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.
        key: command-line key that named `json_file`; messages refer to it and to `<key>_images`.
        masks: whether every object needs a mask; without masks `segmentation` is not looked at.

    Raises:
        InputError: the file has a mistake; the message names the first offenders of its kind.
    """
    json_file, image_root = os.path.abspath(json_file), os.path.abspath(image_root)
    where = f"{key}={printable(json_file)}"
    content = read_coco(json_file, masks=masks, where=where)
    paths = locate_all_images([image["file_name"] for image in content.images], image_root, key=key)
    sizes: dict[str, tuple[int, int]] = {}
    others = [
        f"id {image['id']} ({image['file_name']})"
        for image, path in zip(content.images, paths, strict=True)
        if sizes.setdefault(path, size := (image["width"], image["height"])) != size
    ]
    if others:
        raise InputError(
            f"{where}: {len(others)} images name a file that another one names with another size: "
            f"{first_few(others)}."
        )
    try:
        return _summarize(content, json_file, image_root, sizes)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _summarize(
    content: CocoFile, json_file: str, image_root: str, image_sizes: dict[str, tuple[int, int]]
) -> CocoSummary:
    roles = Counter(annotation["role"] for annotation in content.annotations)
    objects = [a for a in content.annotations if a["role"] == "object"]
    per_class = Counter(annotation["category_id"] for annotation in objects)
    return CocoSummary(
        json_file=json_file,
        image_root=image_root,
        categories=content.categories,
        images=len(content.images),
        annotations=len(content.annotations),
        crowd=roles["crowd"],
        images_without_objects=len(content.images) - len({a["image_id"] for a in objects}),
        objects={id_: per_class[id_] for id_ in content.categories},
        dropped={kind: roles[kind] for kind in DROPPED},
        most_objects=max(Counter(a["image_id"] for a in objects).values(), default=0),
        image_sizes=image_sizes,
        has_rle=any(isinstance(a.get("segmentation"), dict) for a in objects),
        notes=(*content.notes, *geometry_notes(content.images, content.annotations)),
    )
