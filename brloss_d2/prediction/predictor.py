"""A trained detector, ready for images."""

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import convert_PIL_to_numpy
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer, local_file
from brloss_d2.data import DetectionMapper, walk_nodes
from brloss_d2.engine import apply_overrides, choose_device, load_config
from brloss_d2.errors import InputError
from brloss_d2.prediction.categories import Categories
from brloss_d2.prediction.images import read_rgb
from brloss_d2.prediction.results import Prediction

CALIBRATION_FILE = "calibration.json"
_THRESHOLD_KEYS = ("score_thresh", "test_score_thresh")


class Predictor:
    """A detector with its preprocessing and the names of its classes.

    Args:
        model: in evaluation mode; takes and returns what detectron2's detectors do.
        mapper: how test images are resized, and the order of their colors.
        categories: of the model.
        score_threshold: detections below it are dropped, beside those that the model drops.
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
            config: a config file, the `config.yaml` of a run, or a loaded config. All three are
                code: take them from people you trust.
            weights: a checkpoint, loaded without running code of it.
            score_threshold: 0..1; thresholds of the model above it give way to it. None takes that
                of `calibration.json` beside the weights, or leaves it to the model.
            annotations: a COCO file with the categories; None finds them, see `Categories.find`.
            overrides: `key=value` for the config.
            device: "auto", "cpu" or "cuda".

        Raises:
            InputError: config, weights, annotations or threshold are missing or wrong.
        """
        cfg = _load(config, overrides)
        folder = os.path.dirname(os.path.abspath(os.fspath(weights)))
        if score_threshold is None:
            score_threshold = _calibrated_threshold(folder)
        if score_threshold is not None:
            _check_threshold(score_threshold, "The score threshold")
            _lower_thresholds(cfg.model, score_threshold)
        categories = Categories.find(cfg, folder, annotations)
        mapper = _test_mapper(cfg)
        local_file(os.fspath(weights))  # before the time it takes to build the model
        model = instantiate(cfg.model).to(choose_device(device)).eval()
        Checkpointer(model, strict=True).load(os.fspath(weights))
        return cls(model, mapper, categories, score_threshold=score_threshold or 0.0)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Detect in a batch of images, (H, W, 3) uint8, RGB.

        Images of a batch are padded to a common size, of which the detections of a network with
        normalization over the image may depend a little.
        """
        with torch.inference_mode():
            outputs = self.model([self._input(image) for image in images])
        return [
            Prediction.of(output["instances"], self.categories, self.score_threshold)
            for output in outputs
        ]

    def stream(
        self,
        images: Iterable[str | np.ndarray],
        *,
        batch_size: int = 1,
        on_error: Callable[[InputError], object],
    ) -> Iterator[tuple[Prediction, np.ndarray]]:
        """Yield the detections of images, and the images as arrays, one after the other.

        Args:
            images: files, or arrays as for a call. What cannot be read is left out.
            batch_size: images that go through the model together.
            on_error: is called with what is wrong with an image.
        """
        readable = _read(images, on_error)
        while batch := list(islice(readable, batch_size)):
            names, arrays = zip(*batch, strict=True)
            for name, image, found in zip(names, arrays, self(arrays), strict=True):
                yield replace(found, file_name=name), image

    def resized(self, image: np.ndarray) -> Tensor:
        """The input of the network, (3, H', W') of 0..255, for an image (H, W, 3) uint8, RGB."""
        pixels = convert_PIL_to_numpy(Image.fromarray(_checked(image)), self.mapper.image_format)
        augmented = T.AugInput(pixels)
        self.mapper.augmentations(augmented)
        return torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))

    def _input(self, image: np.ndarray) -> dict[str, object]:
        height, width = image.shape[:2]
        return {"image": self.resized(image), "height": height, "width": width}


def _load(config: str | os.PathLike[str] | DictConfig, overrides: Sequence[str]) -> DictConfig:
    if not isinstance(config, DictConfig):
        return load_config(os.fspath(config), overrides)[0]
    cfg = copy.deepcopy(config)
    apply_overrides(cfg, overrides)
    return cfg


def _test_mapper(cfg: DictConfig) -> DetectionMapper:
    node = OmegaConf.select(cfg, "dataloader.test.mapper")
    mapper = None if node is None else instantiate(node)
    if not isinstance(mapper, DetectionMapper):
        raise InputError(
            "The config has no dataloader.test.mapper of the type DetectionMapper, which says how "
            "images are resized."
        )
    return mapper


def _calibrated_threshold(folder: str) -> float | None:
    file_name = os.path.join(folder, CALIBRATION_FILE)
    try:
        with open(file_name, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Cannot read {file_name}: {error}") from error
    threshold = content.get("score_threshold") if isinstance(content, dict) else None
    _check_threshold(threshold, f"{file_name}: score_threshold")
    return threshold


def _check_threshold(value: object, what: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise InputError(f"{what} is {value!r}: expected a number from 0 to 1.")


def _lower_thresholds(model: DictConfig, threshold: float) -> None:
    """Let the model pass on what has exactly this score, too: its own thresholds are exclusive."""
    below = threshold * (1 - 1e-6)
    for node in walk_nodes(model):
        for key in _THRESHOLD_KEYS:
            if key in node and not OmegaConf.is_interpolation(node, key):
                node[key] = min(node[key], below)


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"An image is an array {image.shape} of {image.dtype}: expected (H, W, 3) of uint8."
        )
    return image


def _read(
    images: Iterable[str | np.ndarray], on_error: Callable[[InputError], object]
) -> Iterator[tuple[str, np.ndarray]]:
    for image in images:
        try:
            if isinstance(image, np.ndarray):
                yield "", _checked(image)
            else:
                yield image, read_rgb(image)
        except InputError as error:
            on_error(error)
