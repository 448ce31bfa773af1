"""What was found in an image, and how it is kept: COCO files and pictures."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as rle

from brloss_d2.errors import InputError
from brloss_d2.plotting import LabeledBoxes, draw_detections
from brloss_d2.prediction.categories import Categories
from brloss_d2.utils.files import replacing

PREDICTIONS_FILE = "predictions.json"
IMAGES_FILE = "images.json"
PICTURES_FOLDER = "pictures"


@dataclass(frozen=True)
class Prediction:
    """The detections in one image, best first; N of them.

    Attributes:
        file_name: of the image; "" for one that was given as an array.
        width, height: of the image, in pixels, after a rotation that its EXIF data ask for.
        boxes: (N, 4), XYXY in pixels.
        scores: (N,), 0..1.
        labels: (N,), 0..K-1.
        class_names: N names.
        category_ids: N ids of COCO files.
        rles: N run-length encoded masks of the size of the image, as pycocotools has them; None
            for a model without masks.
    """

    file_name: str
    width: int
    height: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    category_ids: list[int]
    rles: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, found: Instances, categories: Categories, threshold: float) -> "Prediction":
        """From the output of a detector for one image, without scores below the threshold."""
        found = found.to("cpu")
        found = found[found.scores >= threshold]
        found = found[found.scores.argsort(descending=True, stable=True)]
        labels = found.pred_classes.numpy()
        height, width = found.image_size
        return cls(
            file_name="",
            width=width,
            height=height,
            boxes=found.pred_boxes.tensor.numpy(),
            scores=found.scores.numpy(),
            labels=labels,
            class_names=[categories.name(label) for label in labels.tolist()],
            category_ids=[categories.category_id(label) for label in labels.tolist()],
            rles=_encode(found.pred_masks.numpy()) if found.has("pred_masks") else None,
        )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) booleans; None for a model without masks."""
        if self.rles is None:
            return None
        masks = [rle.decode(mask) for mask in self.rles]
        return np.array(masks, dtype=bool).reshape(-1, self.height, self.width)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """The detections in COCO's results format: boxes XYWH, masks as RLE."""
        corners = self.boxes.astype(float)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
        results = [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in zip(
                self.category_ids, boxes, self.scores.tolist(), strict=True
            )
        ]
        for result, mask in zip(results, self.rles or (), strict=bool(self.rles)):
            result["segmentation"] = {**mask, "counts": mask["counts"].decode("ascii")}
        return results


class OutputFolder:
    """Writes predictions: `pictures/*.png`, `predictions.json` and `images.json`.

    `predictions.json` is a list in COCO's results format, `images.json` a COCO file without
    annotations whose image ids and categories it refers to, so that
    `COCO("images.json").loadRes("predictions.json")` has both.

    Args:
        path: made if need be; files of these names in it are replaced.
        categories: of the model.
        pictures: whether to draw.

    Raises:
        InputError: the folder cannot be made or written to.
    """

    def __init__(self, path: str, categories: Categories, *, pictures: bool = True):
        self.path, self.categories, self.pictures = path, categories, pictures
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._names: set[str] = set()
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot make the folder {path}: {error.strerror}.") from error

    def add(self, prediction: Prediction, image: np.ndarray) -> None:
        """Draw an image, (H, W, 3) RGB, and take its detections to the files."""
        number = len(self._images) + 1
        record = {
            "id": number,
            "file_name": prediction.file_name,
            "width": prediction.width,
            "height": prediction.height,
        }
        if self.pictures:
            record["picture"] = os.path.join(PICTURES_FOLDER, self._picture_name(prediction))
            _draw(prediction, image, os.path.join(self.path, record["picture"]))
        self._images.append(record)
        self._results.extend(prediction.to_coco(number))

    def write(self) -> None:
        """Write the two JSON files with all that was added."""
        categories = [
            {"id": id_, "name": name}
            for id_, name in zip(self.categories.ids, self.categories.names, strict=True)
        ]
        self._write(PREDICTIONS_FILE, self._results)
        images = {"images": self._images, "categories": categories, "annotations": []}
        self._write(IMAGES_FILE, images)

    def _picture_name(self, prediction: Prediction) -> str:
        """A name of its own: `a.jpg` and `b/a.png` become `a.png` and `a_2.png`."""
        stem = Path(prediction.file_name).stem or "image"
        names = (f"{stem}_{i}.png" if i > 1 else f"{stem}.png" for i in range(1, 10**9))
        name = next(name for name in names if name not in self._names)
        self._names.add(name)
        return name

    def _write(self, name: str, content: object) -> None:
        file_name = os.path.join(self.path, name)
        try:
            with (
                replacing(file_name) as temporary,
                open(temporary, "w", encoding="utf-8") as file,
            ):
                json.dump(content, file)
        except OSError as error:
            raise InputError(f"Cannot write {file_name}: {error.strerror}.") from error


def _draw(prediction: Prediction, image: np.ndarray, path: str) -> None:
    # One color for each label, one name for each detection: names by label, where they occur.
    names = {int(k): n for k, n in zip(prediction.labels, prediction.class_names, strict=True)}
    objects = LabeledBoxes(prediction.boxes, prediction.labels, prediction.scores, prediction.masks)
    draw_detections(image, objects, names, path)


def _encode(masks: np.ndarray) -> Sequence[dict[str, Any]]:
    if not len(masks):
        return []
    return rle.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
