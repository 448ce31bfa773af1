"""What the readers of all formats share: records of COCO, and mistakes of many files at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util

from brloss_d2.data.fields import Record
from brloss_d2.data.folders.tree import Tree
from brloss_d2.data.masks import mask_box
from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_lines, printable


@dataclass(frozen=True)
class Part:
    """A split of a folder.

    Attributes:
        content: images, annotations and categories as in a COCO file.
        image_root: absolute path of the folder that the names of images are relative to.
        file: absolute path of a COCO file with this content; "" if there is none.
    """

    content: Record
    image_root: str
    file: str = ""


class Problems:
    """Mistakes of files, all of which are read before any is told.

    Args:
        what: what has mistakes, in the plural.
    """

    def __init__(self, what: str):
        self.what = what
        self.found: list[str] = []
        self._owners: dict[str, str] = {}

    @contextmanager
    def about(self, where: str) -> Iterator[None]:
        """Take an `InputError` of the block for a mistake of a place.

        Args:
            where: file, and line if it has several.
        """
        try:
            yield
        except InputError as error:
            self.found.append(f"{printable(where)}: {error}")
        except OSError as error:
            self.found.append(f"{printable(where)}: it cannot be read: {error.strerror}")

    def check_alone(self, image: str, file: str) -> None:
        """Raise if another file has labels of an image, too.

        Args:
            image: image that the file is about.
            file: file of labels.

        Raises:
            InputError: there is another file.
        """
        other = self._owners.setdefault(image, file)
        if other != file:
            raise InputError(f"{printable(image)} has labels in {printable(other)}, too")

    def refuse(self, good: int) -> None:
        """Raise if there were mistakes.

        Args:
            good: number of things without any.

        Raises:
            InputError: there were mistakes; the message names the first ones.
        """
        if self.found:
            total = good + len(self.found)
            raise InputError(
                f"{len(self.found)} of {total} {self.what} have a mistake:{first_lines(self.found)}"
            )


def numbered(
    tree: Tree,
    found: Sequence[tuple[str, list[Record]]],
    *,
    categories: Mapping[int, str] | None = None,
    declared: Mapping[str, tuple[int, int]] | None = None,
) -> Record:
    """Return images with their objects as the content of a COCO file.

    Args:
        tree: files of the folder; headers of the images tell their sizes.
        found: image and its objects, with `bbox` (XYWH, pixels) and the name of the `class`, or
            with `category_id` if categories are given; both are completed in place.
        categories: names by id; None for the classes that occur, in the order of their names,
            numbered from 1.
        declared: image -> width and height in its labels, where they are known.

    Raises:
        InputError: images cannot be read, or are not as large as their labels say.
    """
    if categories is None:
        names = sorted({item["class"] for _, objects in found for item in objects})
        categories = dict(enumerate(names, 1))
    ids = {name: id_ for id_, name in categories.items()}
    images: dict[str, Record] = {}
    annotations: list[Record] = []
    sizes = tree.sizes([image for image, _ in found])
    others = [
        f"{name}: {size[0]} x {size[1]} (width x height), its labels say {said[0]} x {said[1]}"
        for (name, _), size in zip(found, sizes, strict=True)
        if (said := (declared or {}).get(name, size)) != size
    ]
    if others:
        raise InputError(
            f"{len(others)} of {len(found)} images are not as large as their labels say:"
            f"{first_lines(others)}\nWere they resized or turned after they were annotated?"
        )
    for (name, objects), (width, height) in zip(found, sizes, strict=True):
        image = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
        image = images.setdefault(name, image)
        for item in objects:
            if "category_id" not in item:
                item["category_id"] = ids[item.pop("class")]
            item.setdefault("iscrowd", 0)
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **item})
    return {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": id_, "name": name} for id_, name in categories.items()],
    }


def mask_record(mask: np.ndarray) -> Record:
    """Return box and compressed mask of an object.

    Args:
        mask: pixels of the object, (H, W), bool.

    Raises:
        InputError: it has no pixels.
    """
    if not mask.any():
        raise InputError("the mask is empty")
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation = {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}
    return {"bbox": mask_box(rle), "segmentation": segmentation}
