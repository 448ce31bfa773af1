"""Detections of an image, and how they are stored: COCO files and pictures."""

import json
import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as rle

from brloss_d2.errors import InputError
from brloss_d2.prediction.categories import Categories
from brloss_d2.utils.files import check_not_input, write_text
from brloss_d2.utils.optional import import_optional

PREDICTIONS_FILE = "predictions.json"
IMAGES_FILE = "images.json"
PICTURES_FOLDER = "pictures"


@dataclass(frozen=True)
class Prediction:
    """The N detections of an image, best first.

    Attributes:
        file_name: path of the image; "" if it was given as an array.
        width: width of the image in pixels, after the rotation that its EXIF data ask for.
        height: height of the image in pixels, after that rotation.
        boxes: (N, 4) XYXY in pixels.
        scores: (N,) probabilities.
        labels: (N,) class indices 0..K-1.
        class_names: N names.
        category_ids: N ids in COCO files.
        rles: N run-length encoded masks of the size of the image, in the format of pycocotools;
            None for a model without masks.
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
        """Build it from the output of a detector for one image.

        Args:
            found: detections of detectron2.
            categories: classes of the model.
            threshold: lowest score that is kept, 0..1.
        """
        found = found.to("cpu")
        found = found[found.scores >= threshold]
        found = found[found.scores.argsort(descending=True, stable=True)]
        labels = found.pred_classes.numpy()
        names, ids = categories.look_up(labels.tolist())
        height, width = found.image_size
        rles = None
        if found.has("pred_masks"):
            masks = found.pred_masks.numpy().transpose(1, 2, 0)
            rles = rle.encode(np.asfortranarray(masks, dtype=np.uint8)) if len(found) else []
        return cls(
            file_name="",
            width=width,
            height=height,
            boxes=found.pred_boxes.tensor.numpy(),
            scores=found.scores.numpy(),
            labels=labels,
            class_names=names,
            category_ids=ids,
            rles=rles,
        )

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)

    @property
    def masks(self) -> np.ndarray | None:
        """(N, H, W) booleans; None for a model without masks."""
        if self.rles is None:
            return None
        masks = [rle.decode(mask) for mask in self.rles]
        return np.array(masks, dtype=bool).reshape(-1, self.height, self.width)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return the detections in COCO's results format: boxes XYWH, masks as RLE."""
        boxes = self.boxes.astype(float)
        boxes[:, 2:] -= boxes[:, :2]
        columns = zip(self.category_ids, boxes.tolist(), self.scores.tolist(), strict=True)
        results = [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for category, box, score in columns
        ]
        for result, mask in zip(results, self.rles or (), strict=bool(self.rles)):
            result["segmentation"] = {**mask, "counts": mask["counts"].decode("ascii")}
        return results

    def to_supervision(self) -> Any:
        """Return the detections as `supervision.Detections`, to draw, count or track them.

        `class_id` are the labels 0..K-1; `data` has `class_name` and `category_id`.

        Raises:
            InputError: the package supervision is missing.
        """
        detections = import_optional("supervision", "supervision").Detections
        return detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(int),
            mask=self.masks,
            data={
                "class_name": np.array(self.class_names, dtype=str),
                "category_id": np.array(self.category_ids, dtype=int),
            },
        )


class OutputFolder:
    """Folder of predictions: `pictures/*.png`, `predictions.json` and `images.json`.

    `predictions.json` is a list in COCO's results format. `images.json` is a COCO file without
    annotations, with the images and categories that the list refers to, so that
    `COCO("images.json").loadRes("predictions.json")` combines both.

    Args:
        path: path of the folder, created if necessary; files of these names are replaced.
        categories: classes of the model.
        pictures: whether to draw.

    Raises:
        InputError: the folder cannot be created or written to.
    """

    def __init__(self, path: str, categories: Categories, *, pictures: bool = True):
        self.path, self.categories, self.pictures = path, categories, pictures
        self._images: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._picture_names: set[str] = set()
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot create the folder {path}: {error.strerror}.") from error

    def add(self, prediction: Prediction, image: np.ndarray) -> None:
        """Draw the detections of an image, and keep them for the JSON files.

        Args:
            prediction: detections of the image.
            image: (H, W, 3) uint8, RGB.
        """
        number = len(self._images) + 1
        record: dict[str, Any] = {
            "id": number,
            "file_name": prediction.file_name,
            "width": prediction.width,
            "height": prediction.height,
        }
        if self.pictures:
            from brloss_d2.plotting import LabeledBoxes, draw_detections  # needs matplotlib

            # `a.jpg` and `b/a.png` become `a.png` and `a_2.png`.
            stem = Path(prediction.file_name).stem or "image"
            unused = (f"{stem}_{i}.png" if i > 1 else f"{stem}.png" for i in count(1))
            picture = next(name for name in unused if name not in self._picture_names)
            self._picture_names.add(picture)
            record["picture"] = os.path.join(PICTURES_FOLDER, picture)
            # One name per label in the legend.
            labels, names = prediction.labels.tolist(), prediction.class_names
            objects = LabeledBoxes(
                prediction.boxes, prediction.labels, prediction.scores, prediction.masks
            )
            path = os.path.join(self.path, record["picture"])
            check_not_input(path, prediction.file_name, "its annotated copy")
            draw_detections(image, objects, dict(zip(labels, names, strict=True)), path)
        self._images.append(record)
        self._results.extend(prediction.to_coco(number))

    def write(self) -> None:
        """Write the two JSON files with everything that was added."""
        pairs = zip(self.categories.ids, self.categories.names, strict=True)
        categories = [{"id": id_, "name": name} for id_, name in pairs]
        images = {"images": self._images, "categories": categories, "annotations": []}
        for name, content in ((PREDICTIONS_FILE, self._results), (IMAGES_FILE, images)):
            write_text(os.path.join(self.path, name), json.dumps(content))
