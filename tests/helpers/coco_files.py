"""Small COCO-format datasets for tests; each test spoils one thing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 30


def content(images: int = 3) -> dict[str, Any]:
    """Two classes with ids 2 and 7; one box in each image but the last, which has none."""
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
    record = {"id": id_, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
    return {**record, "area": 80.0, **more}


def write(folder: Path, data: Any, *, name: str = "instances.json") -> str:
    """Write `data` and an image for each of its records; return the path of the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in data["images"] if isinstance(data, dict) else []:
        if isinstance(record.get("file_name"), str):
            pixels = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / record["file_name"])
    (folder / name).write_text(json.dumps(data))
    return str(folder / name)
