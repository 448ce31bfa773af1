"""A trained detector, ready for images."""

import copy
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import convert_PIL_to_numpy
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer, fingerprint, local_file, read_checkpoint
from brloss_d2.checkpoint.contents import find_weights
from brloss_d2.data import DetectionMapper, read_image
from brloss_d2.engine import apply_overrides, choose_device, load_config
from brloss_d2.errors import InputError
from brloss_d2.prediction.categories import Categories
from brloss_d2.prediction.images import find_images
from brloss_d2.prediction.results import OutputFolder, Prediction
from brloss_d2.utils.config_nodes import walk_nodes

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
_THRESHOLD_KEYS = ("score_thresh", "test_score_thresh")

Input = str | os.PathLike[str] | np.ndarray


def predict(
    config: str | os.PathLike[str] | DictConfig,
    weights: str | os.PathLike[str],
    images: Input | Iterable[Input],
    *,
    output: str | None = None,
    score_threshold: float | None = None,
    batch_size: int = 1,
    annotations: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> list[Prediction]:
    """Detect objects in images.

    To call a detector many times, build a `brloss_d2.prediction.Predictor` once.

    Args:
        config: config file, `config.yaml` of a run, or loaded config. All three are code: use them
            only from people you trust.
        weights: checkpoint; code in it does not run.
        images: files, folders or patterns; or arrays (H, W, 3) of uint8, RGB; not both.
        output: folder for pictures and COCO files, see `OutputFolder`; None writes nothing.
        score_threshold: lowest score that is kept, 0..1, see `Predictor.load`.
        batch_size: number of images per batch.
        annotations: COCO file with the class names; None finds them.
        overrides: changes to the config, each `key=value`.
        device: "auto", "cpu" or "cuda".

    Returns:
        One prediction per image, in order. A file that cannot be read is logged as a warning and
        left out.

    Raises:
        InputError: an argument is wrong, see `Predictor.load`, or there are no images.

    Example:
        >>> from brloss_d2 import predict
        >>> found = predict("output/a/config.yaml", "output/a/model_final.pth", "photos/*.jpg")
        >>> all(len(image.boxes) == len(image.class_names) for image in found)
        True
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}: expected at least 1.")
    inputs = [images] if isinstance(images, str | os.PathLike | np.ndarray) else list(images)
    arrays = [image for image in inputs if isinstance(image, np.ndarray)]
    paths = [image for image in inputs if not isinstance(image, np.ndarray)]
    if arrays and paths:
        raise InputError("Images are arrays and paths: expected one or the other.")
    readable: list[str] | list[np.ndarray] = arrays or find_images(paths)
    predictor = Predictor.load(
        config,
        weights,
        score_threshold=score_threshold,
        annotations=annotations,
        overrides=overrides,
        device=device,
    )
    folder = None if output is None else OutputFolder(output, predictor.categories)
    found = predictor.stream(readable, batch_size=batch_size, on_error=logger.warning)
    predictions = []
    for prediction, image in found:
        predictions.append(prediction)
        if folder is not None:
            folder.add(prediction, image)
    if folder is not None:
        folder.write()
    return predictions


class Predictor:
    """Detector with its preprocessing and the names of its classes.

    Args:
        model: detector of detectron2 in evaluation mode.
        mapper: mapper of the test images, which defines their size and the order of their colors.
        categories: classes of the model.
        score_threshold: lowest score that is kept, 0..1, in addition to thresholds of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        mapper: DetectionMapper,
        categories: Categories,
        *,
        score_threshold: float = 0.0,
    ):
        self.model, self.mapper, self.categories = model, mapper, categories
        self.score_threshold = score_threshold

    @classmethod
    def load(
        cls,
        config: str | os.PathLike[str] | DictConfig,
        weights: str | os.PathLike[str],
        *,
        score_threshold: float | None = None,
        annotations: str | None = None,
        overrides: Sequence[str] = (),
        device: str = "auto",
    ) -> "Predictor":
        """Build the detector of a config with the weights of a training.

        Args:
            config: config file, `config.yaml` of a run, or loaded config. All three are code: use
                them only from people you trust.
            weights: checkpoint; code in it does not run.
            score_threshold: lowest score that is kept, 0..1; higher thresholds of the model are
                lowered to it. None takes the one in `calibration.json` next to the weights, or
                leaves it to the model.
            annotations: COCO file with the categories; None finds them, see `Categories.find`.
            overrides: changes to the config, each `key=value`.
            device: "auto", "cpu" or "cuda".

        Raises:
            InputError: config, weights, annotations or threshold are missing or wrong.
        """
        if isinstance(config, DictConfig):
            cfg = copy.deepcopy(config)
            apply_overrides(cfg, overrides)
        else:
            cfg, _ = load_config(os.fspath(config), overrides)
        folder = os.path.dirname(os.path.abspath(os.fspath(weights)))
        threshold = _find_threshold(score_threshold, folder, os.fspath(weights))
        if threshold is not None:
            # The model's own thresholds are exclusive: this score has to pass them too.
            below = threshold * (1 - 1e-6)
            for node in walk_nodes(cfg.model):
                for key in _THRESHOLD_KEYS:
                    if key in node and not OmegaConf.is_interpolation(node, key):
                        node[key] = min(node[key], below)
        categories = Categories.find(cfg, folder, annotations)
        node = OmegaConf.select(cfg, "dataloader.test.mapper")
        mapper = None if node is None else instantiate(node)
        if not isinstance(mapper, DetectionMapper):
            raise InputError(
                "The config has no dataloader.test.mapper of the type DetectionMapper, which "
                "defines how images are resized."
            )
        local_file(os.fspath(weights))  # fails early: building the model takes time
        model = instantiate(cfg.model).to(choose_device(device)).eval()
        Checkpointer(model, strict=True).load(os.fspath(weights))
        return cls(model, mapper, categories, score_threshold=threshold or 0.0)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Detect objects in a batch of images, (H, W, 3) uint8, RGB.

        Images of a batch are padded to a common size. The detections of a network that normalizes
        over the image depend a little on it.
        """
        inputs = [
            {"image": self.resized(image), "height": image.shape[0], "width": image.shape[1]}
            for image in images
        ]
        with torch.inference_mode():
            outputs = self.model(inputs)
        return [
            Prediction.of(output["instances"], self.categories, self.score_threshold)
            for output in outputs
        ]

    def stream(
        self,
        images: Iterable[str] | Iterable[np.ndarray],
        *,
        batch_size: int = 1,
        on_error: Callable[[InputError], object],
    ) -> Iterator[tuple[Prediction, np.ndarray]]:
        """Yield the detections of one image after the other, each with the image as an array.

        Args:
            images: files, or arrays as for a call. Unreadable ones are left out.
            batch_size: number of images per batch.
            on_error: function that is called with the error of an unreadable image.
        """
        readable = _read(images, on_error)
        while batch := list(islice(readable, batch_size)):
            names, arrays = zip(*batch, strict=True)
            for name, image, found in zip(names, arrays, self(arrays), strict=True):
                yield replace(found, file_name=name), image

    def resized(self, image: np.ndarray) -> Tensor:
        """Return the input of the network, (3, H', W') of 0..255, for (H, W, 3) uint8, RGB."""
        pixels = convert_PIL_to_numpy(Image.fromarray(_checked(image)), self.mapper.image_format)
        augmented = T.AugInput(pixels)
        self.mapper.augmentations(augmented)
        return torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))


def _find_threshold(given: float | None, folder: str, weights: str) -> float | None:
    """Return the given threshold, or the one in `calibration.json`; None if there is neither.

    A calibration of other weights does not count.
    """
    threshold: Any = given
    what = "The score threshold"
    if given is None:
        file_name = os.path.join(folder, CALIBRATION_FILE)
        try:
            with open(file_name, encoding="utf-8") as file:
                content = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"Cannot read {file_name}: {error}") from error
        content = content if isinstance(content, dict) else {}
        threshold = content.get("score_threshold")
        computed_on = content.get("computed_on")
        known = computed_on.get("weights") if isinstance(computed_on, dict) else None
        if known and known != fingerprint(find_weights(read_checkpoint(local_file(weights)))):
            logger.warning(
                "%s is of other weights than %s: its score threshold is not used. Evaluate these "
                "weights (--eval-only) and analyze again.",
                *(file_name, weights),
            )
            return None
        what = f"{file_name}: score_threshold"
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise InputError(f"{what} is {threshold!r}: expected a number from 0 to 1.")
    return threshold


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"An image is an array {image.shape} of {image.dtype}: expected (H, W, 3) of uint8."
        )
    return image


def _read(
    images: Iterable[str] | Iterable[np.ndarray], on_error: Callable[[InputError], object]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the file name, "" for an array, and the pixels of each image that can be read."""
    for image in images:
        try:
            if isinstance(image, np.ndarray):
                yield "", _checked(image)
            else:
                yield image, read_image(image)
        except InputError as error:
            on_error(error)
