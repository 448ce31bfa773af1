"""A small dataset of colored shapes in COCO format, with boxes and polygons."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brloss_d2.data.synthetic.shape_images import CLASSES, Shape, draw_image
from brloss_d2.errors import InputError

_DESCRIPTION = "brloss_d2 shapes"
_MIN_SIDE = 32  # pixels; smaller images have no room for shapes


def write_shapes(
    output: str | os.PathLike[str],
    train: int = 400,
    val: int = 100,
    size: tuple[int, int] = (128, 160),
    seed: int = 0,
    *,
    overwrite: bool = False,
) -> bool:
    """Write `<output>/{train,val}/*.jpg` and `<output>/annotations/instances_{train,val}.json`.

    Each image depends on the seed and its number alone. The folder appears complete or not at all.

    Args:
        output: folder to create.
        train: number of training images, at least 1.
        val: number of validation images, at least 1.
        size: height and width of every image, pixels, at least 32.
        seed: seed of the generator, at least 0.
        overwrite: whether to replace a dataset that this function wrote with other parameters.

    Returns:
        Whether anything was written: False if `output` has these parameters already.

    Raises:
        InputError: a number is out of range, the folder is in use, or it cannot be written.
    """
    parameters: dict[str, Any] = {"train": train, "val": val, "size": list(size), "seed": seed}
    if min(train, val) < 1 or seed < 0:
        raise InputError("Expected at least 1 training and validation image and a seed >= 0.")
    if min(size) < _MIN_SIDE:
        raise InputError(f"Expected height and width of at least {_MIN_SIDE} pixels.")
    output = Path(os.path.abspath(output))
    if _is_up_to_date(output, parameters, overwrite):
        return False
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
            new = Path(folder) / "new"
            (new / "annotations").mkdir(parents=True)
            for number, split in enumerate(("train", "val")):
                (new / split).mkdir()
                content = _write_split(new / split, parameters[split], parameters, number)
                _annotation_file(new, split).write_text(json.dumps(content))
            if output.exists():
                output.rename(Path(folder) / "old")
            new.rename(output)
    except OSError as error:
        raise InputError(f"Cannot write to {output}: {error.strerror}.") from error
    return True


def coco_annotation(shape: Shape) -> dict[str, Any]:
    """Return the annotation of a shape in COCO format, without its ids."""
    x0, y0, x1, y1 = shape.box.tolist()
    return {
        "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
        "area": round(shape.area, 2),
        "segmentation": [shape.polygon.ravel().tolist()],
        "iscrowd": 0,
    }


def _is_up_to_date(output: Path, parameters: dict[str, Any], overwrite: bool) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        info = json.loads(_annotation_file(output, "train").read_text())["info"]
        known = info["parameters"] if info["description"] == _DESCRIPTION else None
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None:
        raise InputError(f"{output} exists and is not a shapes dataset; choose another folder.")
    if known != parameters and not overwrite:
        raise InputError(
            f"{output} has other parameters: {known} instead of {parameters}. Choose another "
            "folder, or overwrite it."
        )
    return known == parameters


def _annotation_file(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def _write_split(
    folder: Path, count: int, parameters: dict[str, Any], number: int
) -> dict[str, Any]:
    height, width = parameters["size"]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        rng = np.random.default_rng([parameters["seed"], number, image_id])
        pixels, shapes = draw_image(rng, height, width)
        name = f"{image_id:06d}.jpg"
        Image.fromarray(pixels).save(folder / name, quality=92)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for shape in shapes:
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": shape.label + 1}
            annotations.append({**ids, **coco_annotation(shape)})
    return {
        "info": {"description": _DESCRIPTION, "parameters": parameters},
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
        "images": images,
        "annotations": annotations,
    }
