"""Miniatures of COCO, LVIS v1 and Cityscapes, with the file layout of the published datasets.

With a few images of colored shapes a whole recipe runs in seconds under detectron2's built-in
names: `DETECTRON2_DATASETS=<root> python train_net.py ...`. The metrics mean nothing.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES
from PIL import Image

from brloss_d2.data.synthetic.shape_images import CLASSES, Shape, draw_image
from brloss_d2.data.synthetic.shapes import coco_annotation
from brloss_d2.errors import InputError

_CITIES = {"train": "aachen", "val": "frankfurt"}
_CITY_LABELS = ("person", "rider", "car")  # for circle, rectangle and triangle
_COCO_THINGS = [category for category in COCO_CATEGORIES if category["isthing"]]


@dataclass(frozen=True)
class _Scene:
    """An image of `<root>/coco`, which COCO and LVIS annotate differently."""

    image_id: int
    split: str
    size: tuple[int, int]
    shapes: list[Shape]

    @property
    def file_name(self) -> str:
        return f"{self.image_id:012d}.jpg"


def write_miniatures(
    root: str | os.PathLike[str],
    train: int = 6,
    val: int = 4,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> None:
    """Write `<root>/coco`, `<root>/lvis` and `<root>/cityscapes`; needs `cityscapesscripts`.

    The three shapes stand for three of the official categories; for LVIS one of each frequency.
    The difficulties for loaders and evaluators are there: a crowd (COCO, Cityscapes), an LVIS
    validation image in train2017, negative and not exhaustively annotated categories. Equal
    arguments give equal files.

    Args:
        root: folder that does not exist or is empty, so that no dataset is ever overwritten.
        train: number of training images per dataset, at least 2.
        val: number of validation images per dataset, at least 2.
        size: height and width of every image, pixels, at least 64.
        seed: seed of the generator, at least 0.

    Raises:
        InputError: a number is out of range, `root` is in use, or it cannot be written.
    """
    if min(train, val) < 2 or min(size) < 64 or seed < 0:
        raise InputError(
            "Expected at least 2 images per split, sides of 64 pixels and a seed >= 0."
        )
    root = Path(os.path.abspath(root))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} is in use; choose a folder that does not exist or is empty.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # The folder appears complete or not at all.
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
            new = Path(folder) / "new"
            scenes: list[_Scene] = []
            for split in ["train"] * train + ["val"] * val:
                pixels, shapes = draw_image(np.random.default_rng([seed, len(scenes) + 1]), *size)
                scenes.append(_Scene(len(scenes) + 1, split, size, shapes))
                image_file = new / "coco" / f"{split}2017" / scenes[-1].file_name
                image_file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(image_file)
            _write_coco(new / "coco", scenes)
            _write_lvis(new / "lvis", scenes)
            _write_cityscapes(new / "cityscapes", {"train": train, "val": val}, size, seed)
            new.rename(root)
    except OSError as error:
        raise InputError(f"Cannot write to {root}: {error.strerror}.") from error


def _write_coco(folder: Path, scenes: Sequence[_Scene]) -> None:
    ids = [category["id"] for category in _COCO_THINGS[: len(CLASSES)]]
    categories = [{"id": c["id"], "name": c["name"], "supercategory": ""} for c in _COCO_THINGS]
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        chosen = [scene for scene in scenes if scene.split == split]
        annotations = _annotations(chosen, ids)
        # The upper left ninth of the first image is a crowd, encoded as in COCO: run lengths by
        # columns.
        height, width = (side // 3 for side in chosen[0].size)
        mask = np.zeros(chosen[0].size, dtype=bool)
        mask[:height, :width] = True
        column_major = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(column_major, prepend=False, append=True))
        counts = np.diff(edges, prepend=0).tolist()
        crowd = {
            "id": len(annotations) + 1,
            "image_id": chosen[0].image_id,
            "category_id": ids[0],
            "bbox": [0, 0, width, height],
            "area": width * height,
            "segmentation": {"counts": counts, "size": list(chosen[0].size)},
            "iscrowd": 1,
        }
        annotations.append(crowd)
        images = [{"file_name": scene.file_name, **_image(scene)} for scene in chosen]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def _write_lvis(folder: Path, scenes: Sequence[_Scene]) -> None:
    ids = [next(c["id"] for c in LVIS_CATEGORIES if c["frequency"] == f) for f in "fcr"]
    # Part of the images of LVIS val are images of COCO train.
    moved = max(scene.image_id for scene in scenes if scene.split == "train")
    folder.mkdir()
    for split in ("train", "val"):
        chosen = [
            s for s in scenes if (s.split == "val" or s.image_id == moved) == (split == "val")
        ]
        annotations = _annotations(chosen, ids)
        for annotation in annotations:
            del annotation["iscrowd"]  # LVIS has no crowds
        images = []
        for scene in chosen:
            present = sorted({ids[shape.label] for shape in scene.shapes})
            url = f"http://images.cocodataset.org/{scene.split}2017/{scene.file_name}"
            lists = {
                "neg_category_ids": [id_ for id_ in ids if id_ not in present],
                "not_exhaustive_category_ids": present[:1] if scene.image_id % 2 else [],
            }
            images.append({**_image(scene), "coco_url": url, **lists})
        instances = Counter(a["category_id"] for a in annotations)
        seen = Counter(c for _, c in {(a["image_id"], a["category_id"]) for a in annotations})
        categories = [
            {**c, "image_count": seen[c["id"]], "instance_count": instances[c["id"]]}
            for c in LVIS_CATEGORIES
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"lvis_v1_{split}.json").write_text(json.dumps(content))


def _annotations(scenes: Iterable[_Scene], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for scene in scenes:
        for shape in scene.shapes:
            ids = {"id": len(annotations) + 1, "image_id": scene.image_id}
            category = {"category_id": category_ids[shape.label]}
            annotations.append({**ids, **category, **coco_annotation(shape)})
    return annotations


def _image(scene: _Scene) -> dict[str, Any]:
    return {"id": scene.image_id, "height": scene.size[0], "width": scene.size[1]}


def _write_cityscapes(
    folder: Path, counts: dict[str, int], size: tuple[int, int], seed: int
) -> None:
    """Write `leftImg8bit/<split>/<city>/*` and `gtFine/<split>/<city>/*` below `folder`.

    The id images are drawn from the polygons by the scripts of Cityscapes. The second image of each
    split has a `cargroup`: cars that the annotators did not tell apart.

    Raises:
        InputError: these scripts are not installed.
    """
    height, width = size
    road = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    group = [[0, 0], [width // 3, 0], [width // 3, height // 3], [0, height // 3]]
    for stream, (split, count) in enumerate(counts.items()):
        city = _CITIES[split]
        images, truth = (folder / kind / split / city for kind in ("leftImg8bit", "gtFine"))
        images.mkdir(parents=True)
        truth.mkdir(parents=True)
        for number in range(count):
            rng = np.random.default_rng([seed, stream, number])
            pixels, shapes = draw_image(rng, *size)
            name = f"{city}_{number:06d}_000019"
            Image.fromarray(pixels).save(images / f"{name}_leftImg8bit.png")
            # From back to front: a later object hides the earlier ones.
            objects: list[dict[str, Any]] = [{"label": "road", "polygon": road}]
            if number == 1:
                objects.append({"label": "cargroup", "polygon": group})
            for shape in shapes:
                polygon = shape.polygon.round().astype(int).tolist()  # Cityscapes has whole pixels
                objects.append({"label": _CITY_LABELS[shape.label], "polygon": polygon})
            content = {"imgHeight": height, "imgWidth": width, "objects": objects}
            (truth / f"{name}_gtFine_polygons.json").write_text(json.dumps(content))
            _write_id_images(truth, name)


def _write_id_images(folder: Path, name: str) -> None:
    try:
        from cityscapesscripts.helpers.annotation import Annotation
        from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
        from cityscapesscripts.preparation.json2labelImg import createLabelImage
    except ImportError as error:
        raise InputError(
            f"A miniature of Cityscapes needs {error.name}: "
            "python -m pip install --no-deps cityscapesscripts pyquaternion"
        ) from error

    annotation = Annotation()
    annotation.fromJsonFile(str(folder / f"{name}_gtFine_polygons.json"))
    # 16 bits, as published: Pillow writes no 32-bit PNG.
    instances = np.asarray(createInstanceImage(annotation, "ids")).astype(np.uint16)
    Image.fromarray(instances).save(folder / f"{name}_gtFine_instanceIds.png")
    for kind, encoding in (("labelIds", "ids"), ("color", "color")):
        createLabelImage(annotation, encoding).save(folder / f"{name}_gtFine_{kind}.png")
