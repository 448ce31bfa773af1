"""An evaluated run, read from its output folder: dataset, ground truth, predictions."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from brloss_d2.data import check_registered_dataset
from brloss_d2.data.masks import MaskError, normalized_mask, to_rle
from brloss_d2.errors import InputError
from brloss_d2.evaluation.lrp import best_lrp_threshold
from brloss_d2.evaluation.matches import Matches, match_detections
from brloss_d2.evaluation.protocols import evaluate_detections, read_ground_truth
from brloss_d2.utils.config_nodes import names_of

_DEFAULT_THRESHOLD = 0.5  # if no detection is correct
_MATCH_IOU = 0.5


@dataclass(frozen=True)
class LabeledBoxes:
    """Objects of one image.

    Attributes:
        boxes: boxes, (N, 4), XYXY in pixels.
        labels: classes, (N,), 0..K-1.
        scores: scores, (N,), 0..1; None for ground truth.
        masks: masks of the size of the image, (H, W) bool or a compressed RLE of COCO each; None
            for boxes alone.
        wrong: whether a true object was missed, or a detection is false, (N,); None if unknown.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | Sequence[Any] | None = None
    wrong: np.ndarray | None = None


@dataclass(frozen=True)
class ImagePair:
    """Ground truth and predictions of one image.

    Attributes:
        file_name: path of the image.
        ground_truth: annotated objects.
        predictions: detected objects.
    """

    file_name: str
    ground_truth: LabeledBoxes
    predictions: LabeledBoxes


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluated dataset.

    Attributes:
        records: images as dicts of detectron2's dataset format.
        results: detections in COCO format: image_id, category_id (that of the JSON), bbox XYWH,
            score.
        json_file: path of the ground truth in COCO format.
        class_names: names of the classes, K of them.
        class_ids: category id of the JSON -> class, 0..K-1.
        weights: fingerprint of the model that was evaluated; "" if it is unknown.
    """

    records: list[dict[str, Any]]
    results: list[dict[str, Any]]
    json_file: str
    class_names: list[str]
    class_ids: dict[int, int]
    weights: str = ""

    @classmethod
    def load(cls, output_dir: str) -> "EvaluatedRun":
        """Load `<output_dir>/inference`: `coco_instances_results.json` and the config behind it.

        Without a config there it is that of the training, `<output_dir>/config.yaml`.

        Raises:
            InputError: a file is missing or damaged, or the predictions belong to other images.
        """
        folder = os.path.join(output_dir, "inference")
        path = os.path.join(folder, "config.yaml")
        if not os.path.isfile(path):
            path = os.path.join(output_dir, "config.yaml")
        if not os.path.isfile(path):
            raise InputError(f"{path} does not exist: expected the output folder of train_net.py.")
        try:
            node = LazyConfig.load(path).dataloader.test.dataset
        except YAMLError as error:
            raise InputError(f"{path} is not valid YAML: {error}") from error
        except (OmegaConfBaseException, AttributeError) as error:
            raise InputError(f"{path} has no dataloader.test.dataset.") from error
        results_file = os.path.join(folder, "coco_instances_results.json")
        results = _read_results(results_file)
        name = names_of(node)[0]
        if node.get("json_file") is None:
            check_registered_dataset(name)
        records, metadata = instantiate(node), MetadataCatalog.get(name)
        if not hasattr(metadata, "json_file"):
            raise InputError(
                f"Dataset {name} is not in COCO format, and no other format can be read."
            )
        class_ids = metadata.thing_dataset_id_to_contiguous_id
        images = {r["image_id"] for r in results} - {r["image_id"] for r in records}
        categories = {r["category_id"] for r in results} - set(class_ids)
        for what, unknown in (("images", images), ("categories", categories)):
            if unknown:
                raise InputError(
                    f"{results_file}: predictions for {len(unknown)} {what} that dataset {name} "
                    "does not contain. Evaluate again."
                )
        weights = ""
        with (
            suppress(OSError, ValueError, LookupError, TypeError),
            open(os.path.join(folder, "weights.json"), encoding="utf-8") as file,
        ):
            weights = str(json.load(file)["fingerprint"])
        names = metadata.thing_classes
        return cls(records, results, metadata.json_file, names, class_ids, weights)

    @property
    def category_names(self) -> dict[int, str]:
        """Names by category id of the JSON."""
        return {id_: self.class_names[number] for id_, number in self.class_ids.items()}

    def pairs(self, count: int, threshold: float) -> list[ImagePair]:
        """Return images with objects, spread over the dataset, with the errors at IoU 0.5.

        Masks are returned if there are masks among the predictions.

        Args:
            count: number of images, at least 1; fewer are returned if there are fewer.
            threshold: lowest score of the predictions to return, 0..1.

        Raises:
            InputError: a mask of the predictions is damaged.
        """
        records = [r for r in self.records if r["annotations"]] or self.records
        chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
        found = defaultdict(list)
        for result in self.results:
            if result["score"] >= threshold:
                found[result["image_id"]].append(result)
        masks = any("segmentation" in result for result in self.results)
        pairs = []
        for record in (records[i] for i in chosen):
            annotations = record["annotations"]
            results = sorted(found[record["image_id"]], key=lambda r: r["score"])  # best on top
            classes = [self.class_ids[result["category_id"]] for result in results]
            of_truth = [a["category_id"] for a in annotations]
            missed, false = _find_errors(annotations, of_truth, results, classes)
            size = (record["height"], record["width"]) if masks else None
            truth = _labeled(annotations, of_truth, missed, size)
            predictions = _labeled(results, classes, false, size, scored=True)
            pairs.append(ImagePair(record["file_name"], truth, predictions))
        return pairs


def best_threshold(
    run: EvaluatedRun, criterion: Callable[[Matches], float] = best_lrp_threshold
) -> float:
    """Return the best score threshold over all classes, at IoU 0.5.

    A ranking loss orders scores and does not calibrate them: with one loss the best threshold is
    0.3, with another 0.8, so that pictures with a fixed threshold are not comparable.

    Args:
        run: evaluated dataset.
        criterion: function that chooses the threshold, by default the one with the lowest LRP, as
            in `calibration.json`.
    """
    if not run.results:
        return _DEFAULT_THRESHOLD
    truth = read_ground_truth(run.json_file, masks=False)
    threshold = criterion(match_detections(evaluate_detections(truth, run.results, "bbox")))
    return _DEFAULT_THRESHOLD if math.isnan(threshold) else threshold


def _labeled(
    objects: list[dict[str, Any]],
    labels: list[int],
    wrong: np.ndarray,
    size: tuple[int, int] | None,
    *,
    scored: bool = False,
) -> LabeledBoxes:
    boxes = [BoxMode.convert(o["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for o in objects]
    masks = None
    if size is not None and all("segmentation" in o for o in objects):
        try:
            masks = [to_rle(normalized_mask(o["segmentation"], *size), *size) for o in objects]
        except MaskError as error:
            raise InputError(f"A mask of the predictions is damaged: {error}.") from error
    return LabeledBoxes(
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        labels=np.array(labels, dtype=int),
        scores=np.array([o["score"] for o in objects]) if scored else None,
        masks=masks,
        wrong=wrong,
    )


def _find_errors(
    annotations: list[dict[str, Any]],
    labels: list[int],
    results: list[dict[str, Any]],
    classes: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Match boxes as COCO does, the best detections, which come last, first.

    Returns:
        `(missed, false)`: whether each object was missed, and whether each detection is false.
    """
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
    missed, false = ~crowd, np.zeros(len(results), bool)
    if not annotations or not results:
        return missed, ~false
    boxes = ([o["bbox"] for o in objects] for objects in (results, annotations))
    ious = np.reshape(mask_util.iou(*boxes, crowd.astype(np.uint8)), (len(results), -1))
    ious *= np.equal.outer(classes, labels)
    for number in reversed(range(len(results))):
        free = np.where(missed, ious[number], 0.0)
        if free.max() >= _MATCH_IOU:
            missed[free.argmax()] = False
        else:  # a detection within a crowd counts as nothing
            false[number] = not (ious[number][crowd] >= _MATCH_IOU).any()
    return missed, false


def _read_results(path: str) -> list[dict[str, Any]]:
    if not os.path.isfile(path):
        raise InputError(
            f"{path} does not exist: evaluate first (train_net.py does after training, or with "
            "--eval-only)."
        )
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}. Evaluate again.") from error
    keys = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(results, list) or not all(
        isinstance(r, dict) and keys <= r.keys() for r in results
    ):
        raise InputError(f"{path} is not a list of COCO detections. Evaluate again.")
    return results
