"""A miniature of Cityscapes: leftImg8bit and gtFine with polygons, ids and colors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brloss_d2.data.synthetic.shape_images import Shape, draw_image
from brloss_d2.errors import InputError

_CITIES = {"train": "aachen", "val": "frankfurt"}
_LABELS = ("person", "rider", "car")  # what circle, rectangle and triangle play


def write_cityscapes(
    folder: Path, counts: dict[str, int], size: tuple[int, int], seed: int
) -> None:
    """Write `leftImg8bit/<split>/<city>/*` and `gtFine/<split>/<city>/*` below `folder`.

    The id images are drawn from the polygons by Cityscapes' own scripts. The second image of each
    split has a `cargroup`: cars that the annotators did not tell apart.

    Args:
        folder: the folder to create.
        counts: split -> number of images.
        size: height and width, pixels.
        seed: seed of the generator.

    Raises:
        InputError: those scripts are not installed.
    """
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
            objects = _objects(shapes, size, with_group=number == 1)
            content = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
            (truth / f"{name}_gtFine_polygons.json").write_text(json.dumps(content))
            _write_id_images(truth, name)


def _objects(
    shapes: list[Shape], size: tuple[int, int], *, with_group: bool
) -> list[dict[str, Any]]:
    """Objects from back to front; a later one hides the earlier ones."""
    height, width = size
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    objects: list[dict[str, Any]] = [{"label": "road", "polygon": corners}]
    if with_group:
        corner = [[0, 0], [width // 3, 0], [width // 3, height // 3], [0, height // 3]]
        objects.append({"label": "cargroup", "polygon": corner})
    for shape in shapes:
        polygon = shape.polygon.round().astype(int).tolist()  # Cityscapes clicks whole pixels
        objects.append({"label": _LABELS[shape.label], "polygon": polygon})
    return objects


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
