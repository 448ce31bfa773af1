"""Small COCO-format datasets, in which each test breaks one thing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from PIL import Image

from brloss_d2.data import DetectionMapper

HEIGHT, WIDTH = 20, 30


def content(images: int = 3) -> dict[str, Any]:
    """Return annotations of classes 2 and 7: one box per image, none in the last image."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": 7, "name": "nut"}, {"id": 2, "name": "bolt"}],
        "annotations": [annotation(i, i, category=2 if i % 2 else 7) for i in range(1, images)],
    }


def annotation(
    id_: int, image: int, *, category: int = 2, box: Any = (2.0, 3.0, 10.0, 8.0), **more: Any
) -> dict[str, Any]:
    """Return the record of a box (XYWH in pixels), with further keys by name."""
    record = {"id": id_, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return {**record, "area": 80.0, **more}


def write(folder: Path, data: Any, *, name: str = "instances.json") -> str:
    """Write `data` and an image per record to a folder; return the path of the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in data["images"] if isinstance(data, dict) else []:
        if isinstance(record.get("file_name"), str):
            pixels = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / record["file_name"])
    (folder / name).write_text(json.dumps(data))
    return str(folder / name)


def mapped(records: Iterable[dict[str, Any]], *, masks: bool) -> list[Instances]:
    """Return the objects of detectron2's records that training sees without augmentation."""
    mapper = DetectionMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=masks,
        instance_mask_format="bitmask",
    )
    return [mapper(record)["instances"] for record in records]
