"""Random ground truth and detections in COCO and LVIS format, with all awkward cases."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes, Instances

HEIGHT, WIDTH = 120, 160


def ground_truth(
    rng: np.random.Generator, *, images: int, categories: int, objects: int, crowds: bool
) -> dict[str, Any]:
    """Draw a dataset with polygons; the last category has no object, the first image is empty."""
    records = [{"id": 3 * i + 1, "height": HEIGHT, "width": WIDTH} for i in range(images)]
    annotations: list[dict[str, Any]] = []
    for image in records[1:]:
        for _ in range(rng.integers(1, objects + 1)):
            x, y, w, h = box = draw_box(rng).tolist()
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["id"],
                "category_id": int(rng.integers(1, categories)),
                "bbox": box,
                "area": w * h * rng.uniform(0.5, 1),
                "segmentation": [[x, y, x + w, y + h / 3, x + w, y + h, x, y + h]],
                "iscrowd": 0,
            }
            if crowds and rng.random() < 0.2:
                (rle,) = mask_util.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)
                rle["counts"] = rle["counts"].decode("ascii")
                annotation.update(iscrowd=1, segmentation=rle)
            annotations.append(annotation)
    return {
        "images": records,
        "annotations": annotations,
        "categories": [{"id": i, "name": f"c{i}"} for i in range(1, categories + 1)],
    }


def federated(rng: np.random.Generator, data: dict[str, Any]) -> dict[str, Any]:
    """Turn a dataset into one of LVIS, in which not all categories are annotated in all images."""
    ids = [category["id"] for category in data["categories"]]
    images = [
        {
            **image,
            "neg_category_ids": rng.choice(ids, 2, replace=False).tolist(),
            "not_exhaustive_category_ids": rng.choice(ids, 1).tolist(),
        }
        for image in data["images"]
    ]
    categories = [{**c, "frequency": "rcf"[c["id"] % 3]} for c in data["categories"]]
    return {**data, "images": images, "categories": categories}


def detections(
    rng: np.random.Generator, data: dict[str, Any], count: int
) -> list[tuple[dict[str, Any], dict[str, Instances]]]:
    """Draw detections near objects and elsewhere, some of them of a wrong category.

    Args:
        rng: generator.
        data: ground truth in COCO format.
        count: number of detections per image.

    Returns:
        Inputs and outputs of a model, one pair per image. Scores have two digits, so that many are
        equal.
    """
    categories = len(data["categories"])
    pairs = []
    for image in data["images"]:
        objects = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        boxes, classes = [], []
        for number in range(count):
            near = objects[number % len(objects)] if objects and number % 3 else None
            boxes.append(draw_box(rng) if near is None else jitter(rng, np.array(near["bbox"])))
            known = near is not None and rng.random() < 0.9
            classes.append(near["category_id"] - 1 if known else int(rng.integers(categories)))
        found = np.array(boxes)
        found[:, 2:] += found[:, :2]
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes = Boxes(torch.tensor(found, dtype=torch.float32))
        instances.scores = torch.tensor(rng.random(count).round(2), dtype=torch.float32)
        instances.pred_classes = torch.tensor(classes)
        instances.pred_masks = torch.from_numpy(np.stack([_mask(box) for box in found]))
        pairs.append(({"image_id": image["id"]}, {"instances": instances}))
    return pairs


def draw_box(rng: np.random.Generator) -> np.ndarray:
    """Draw a box (XYWH) with sides of 4 to 119 pixels: small, medium or large as in COCO."""
    size = np.exp(rng.uniform(np.log(4), np.log(119), size=2))
    corner = rng.uniform(0, [WIDTH, HEIGHT] - size)
    return np.concatenate([corner, size])


def jitter(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """Move and resize a box (XYWH) by 0, 3 or 15 % of its sides."""
    scale = np.tile(box[2:], 2) * rng.choice([0.0, 0.03, 0.15])
    jittered = box + rng.normal(size=4) * scale
    jittered[2:] = jittered[2:].clip(min=1)
    return jittered


def _mask(box: np.ndarray) -> np.ndarray:
    """Fill a box (XYXY) in a mask of the image."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x0, y0, x1, y1 = box.round().astype(int).clip(min=0)
    mask[y0:y1, x0:x1] = True
    return mask
