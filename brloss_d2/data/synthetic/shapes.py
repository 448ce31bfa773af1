"""Write a small data set of colored shapes in COCO format, with boxes and polygons."""

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

    Each image depends on the seed and its number alone. All of it appears at once: whatever
    interrupts the writing leaves no incomplete data set behind.

    Args:
        output: the folder to create.
        train: number of training images.
        val: number of validation images.
        size: height and width of every image, pixels.
        seed: seed of the generator.
        overwrite: replace a data set that this function wrote with other parameters.

    Returns:
        Whether anything was written: False if `output` has these parameters already.

    Raises:
        InputError: a number is out of range, the folder is in use, or it cannot be written.
    """
    parameters = {"train": train, "val": val, "size": list(size), "seed": seed}
    _check_parameters(parameters)
    output = Path(os.path.abspath(output))
    if _is_up_to_date(output, parameters, overwrite):
        return False
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
            _write(Path(folder) / "new", parameters)
            if output.exists():
                output.rename(Path(folder) / "old")
            (Path(folder) / "new").rename(output)
    except OSError as error:
        raise InputError(f"Cannot write to {output}: {error.strerror}.") from error
    return True


def _check_parameters(parameters: dict[str, Any]) -> None:
    if min(parameters["train"], parameters["val"]) < 1 or parameters["seed"] < 0:
        raise InputError("Expected at least 1 training and validation image and a seed >= 0.")
    if min(parameters["size"]) < _MIN_SIDE:
        raise InputError(f"Expected height and width of at least {_MIN_SIDE} pixels.")


def _is_up_to_date(output: Path, parameters: dict[str, Any], overwrite: bool) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    info = _read_info(output)
    if info.get("description") != _DESCRIPTION:
        raise InputError(f"{output} exists and is not a shapes data set; choose another folder.")
    if info["parameters"] == parameters:
        return True
    if not overwrite:
        raise InputError(
            f"{output} has other parameters: {info['parameters']} instead of {parameters}. "
            "Choose another folder, or overwrite it."
        )
    return False


def _read_info(output: Path) -> dict[str, Any]:
    try:
        content = json.loads(_annotation_file(output, "train").read_text())
        return content["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(folder: Path, parameters: dict[str, Any]) -> None:
    (folder / "annotations").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        (folder / split).mkdir()
        content = _write_split(folder / split, parameters[split], parameters, number)
        _annotation_file(folder, split).write_text(json.dumps(content))


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


def coco_annotation(shape: Shape) -> dict[str, Any]:
    """Return what an annotation in COCO format says of one shape, all but its ids."""
    x0, y0, x1, y1 = shape.box.tolist()
    return {
        "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
        "area": round(shape.area, 2),
        "segmentation": [shape.polygon.ravel().tolist()],
        "iscrowd": 0,
    }
