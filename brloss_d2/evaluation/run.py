"""An evaluated run, read from its output folder: dataset, ground truth, predictions."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from brloss_d2.data import check_registered_dataset
from brloss_d2.data.masks import MaskError, normalized_mask, to_rle
from brloss_d2.errors import InputError, NothingToAnalyzeError
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

    @property
    def errors(self) -> tuple[int, int]:
        """Numbers of missed objects and of false detections; 0 if they are unknown."""
        missed, false = (
            0 if side.wrong is None else int(side.wrong.sum())
            for side in (self.ground_truth, self.predictions)
        )
        return missed, false

    @property
    def badness(self) -> tuple[int, float]:
        """Number of errors, and sum of the scores of the false detections."""
        scores, wrong = self.predictions.scores, self.predictions.wrong
        total = 0.0 if scores is None or wrong is None else float(scores[wrong].sum())
        return sum(self.errors), total


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
        except (YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid YAML: {error}") from error
        except (OmegaConfBaseException, AttributeError) as error:
            raise NothingToAnalyzeError(
                f"{path} has no dataloader.test.dataset: the run was trained without validation."
            ) from error
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

    def pairs(self, count: int, threshold: float, *, task: str = "bbox") -> list[ImagePair]:
        """Return images with objects, spread over the dataset, with the errors at IoU 0.5.

        Masks are returned if there are masks among the predictions.

        Args:
            count: number of images, at least 1; fewer are returned if there are fewer.
            threshold: lowest score of the predictions to return, 0..1.
            task: `bbox` or `segm`: whether the IoU is that of boxes or of masks.

        Raises:
            InputError: a mask of the predictions is damaged.
        """
        records = [r for r in self.records if r["annotations"]] or self.records
        chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
        return self._pairs([records[i] for i in chosen], threshold, task=task)

    def worst_pairs(self, count: int, threshold: float, *, task: str = "bbox") -> list[ImagePair]:
        """Return the images with the most errors at IoU 0.5, the worst one first.

        Each missed object and each false detection counts one, so that an object of the wrong
        class counts two. Among equals, higher scores of the false detections are worse. Images
        without errors are left out. Masks are returned as by `pairs`.

        Args:
            count: largest number of images.
            threshold: lowest score of the predictions that count, 0..1.
            task: `bbox` or `segm`: whether the IoU is that of boxes or of masks.

        Raises:
            InputError: a mask of the predictions is damaged.
        """
        pairs = self._pairs(self.records, threshold, task=task, masks=task == "segm")
        order = sorted(range(len(pairs)), key=lambda i: pairs[i].badness, reverse=True)
        worst = [self.records[i] for i in order[:count] if any(pairs[i].errors)]
        return self._pairs(worst, threshold, task=task)

    def _pairs(
        self,
        records: Sequence[dict[str, Any]],
        threshold: float,
        *,
        task: str,
        masks: bool = True,
    ) -> list[ImagePair]:
        """Return images with the errors at IoU 0.5; without `masks`, they have boxes alone."""
        found = defaultdict(list)
        for result in self.results:
            if result["score"] >= threshold:
                found[result["image_id"]].append(result)
        masks = masks and any("segmentation" in result for result in self.results)
        pairs = []
        for record in records:
            annotations = record["annotations"]
            results = sorted(found[record["image_id"]], key=lambda r: r["score"])  # best on top
            size = (record["height"], record["width"]) if masks else None
            truth = _labeled(annotations, [a["category_id"] for a in annotations], size)
            labels = [self.class_ids[result["category_id"]] for result in results]
            predictions = _labeled(results, labels, size, scored=True)
            crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
            shapes: Any = [[o["bbox"] for o in objects] for objects in (results, annotations)]
            if task == "segm" and predictions.masks is not None and truth.masks is not None:
                shapes = [predictions.masks, truth.masks]
            same = np.equal.outer(predictions.labels, truth.labels)
            missed, false = _find_errors(shapes, same, crowd)
            truth, predictions = replace(truth, wrong=missed), replace(predictions, wrong=false)
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
    size: tuple[int, int] | None,
    *,
    scored: bool = False,
) -> LabeledBoxes:
    boxes = np.array([o["bbox"] for o in objects], dtype=float).reshape(-1, 4)
    masks = None
    if size is not None and all("segmentation" in o for o in objects):
        try:
            masks = [to_rle(normalized_mask(o["segmentation"], *size), *size) for o in objects]
        except MaskError as error:
            raise InputError(f"A mask of the predictions is damaged: {error}.") from error
    return LabeledBoxes(
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        labels=np.array(labels, dtype=int),
        scores=np.array([o["score"] for o in objects]) if scored else None,
        masks=masks,
    )


def _find_errors(
    shapes: list[Any], same: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match D detections with G objects as COCO does, the best ones, which come last, first.

    Args:
        shapes: boxes XYWH, or masks, of the detections and of the objects.
        same: whether detection and object have the same class, (D, G).
        crowd: whether an object is a crowd, (G,).

    Returns:
        `(missed, false)`: whether each object was missed, and whether each detection is false.
    """
    missed, false = ~crowd, np.zeros(len(same), bool)
    if not same.size:
        return missed, ~false
    ious = np.reshape(mask_util.iou(*shapes, crowd.astype(np.uint8)), same.shape) * same
    for number in reversed(range(len(false))):
        free = np.where(missed, ious[number], 0.0)
        if free.max() >= _MATCH_IOU:
            missed[free.argmax()] = False
        else:  # a detection within a crowd counts as nothing
            false[number] = not (ious[number][crowd] >= _MATCH_IOU).any()
    return missed, false


def _read_results(path: str) -> list[dict[str, Any]]:
    if os.path.isfile(path.replace("coco_instances", "lvis_instances")):
        raise NothingToAnalyzeError(
            "The detections are in LVIS format: only those of COCO are analyzed."
        )
    if not os.path.isfile(path):
        raise NothingToAnalyzeError(
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
    try:
        ids = np.array([(r["image_id"], r["category_id"]) for r in results] or [(0, 0)])
        numbers = np.array([(*r["bbox"], r["score"]) for r in results] or [(0.0,) * 5], float)
        is_damaged = ids.dtype.kind not in "iu" or numbers.shape[1:] != (5,)
    except (ValueError, TypeError):
        is_damaged = True
    if is_damaged or not np.isfinite(numbers).all():
        raise InputError(f"{path} has damaged detections. Evaluate again.")
    return results
