"""A trained detector, ready for images."""

import copy
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, starmap
from typing import Any, TypeVar

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer, fingerprint, local_file
from brloss_d2.checkpoint.contents import read_weights
from brloss_d2.data import DetectionMapper
from brloss_d2.data.images import as_array
from brloss_d2.engine import (
    apply_overrides,
    choose_device,
    load_config,
    set_tiles,
    with_test_augmentation,
)
from brloss_d2.errors import InputError
from brloss_d2.evaluation.calibration import FILE_NAME as CALIBRATION_FILE
from brloss_d2.evaluation.calibration import is_score, load_calibration
from brloss_d2.prediction.categories import Categories
from brloss_d2.prediction.hub import find_shared, is_shared
from brloss_d2.prediction.inputs import Input, each_input, list_inputs, read_input
from brloss_d2.prediction.results import OutputFolder, Prediction
from brloss_d2.utils.config_nodes import walk_nodes
from brloss_d2.utils.text import first_few

logger = logging.getLogger(__name__)

# Warnings of torch about the code of detectron2, which no user can fix.
warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

_MOST_WORKERS = 64
_Result = TypeVar("_Result")
_THRESHOLD_KEYS = ("score_thresh", "test_score_thresh")


def predict(
    config: str | os.PathLike[str] | DictConfig,
    weights: str | os.PathLike[str] | None = None,
    images: Input | Iterable[Input] = (),
    *,
    output: str | None = None,
    score_threshold: float | None = None,
    batch_size: int = 1,
    num_workers: int = 2,
    tile: int | None = None,
    overlap: float | None = None,
    annotations: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    skip_unreadable: bool = False,
) -> list[Prediction]:
    """Detect objects in images.

    To call a detector many times, build a `brloss_d2.prediction.Predictor` once.

    Args:
        config: config file, `config.yaml` of a run, or loaded config, which are code: use them only
            from people you trust; or a model with its weights: the folder of a run or of
            `brloss-share`, or `hf://OWNER/NAME` of the Hugging Face Hub.
        weights: checkpoint; code in it does not run. None for a config with its weights.
        images: files, folders or patterns; or arrays (H, W, 3) of uint8, RGB, and images of
            Pillow; not both.
        output: folder for pictures and COCO files, see `OutputFolder`; None writes nothing.
        score_threshold: lowest score that is kept, 0..1, see `Predictor.load`.
        batch_size: number of images per batch.
        num_workers: number of threads that read and resize images while the model looks at others;
            0 reads each when it is needed. The detections are the same.
        tile: side in pixels of the tiles in which large images are looked at, see
            `brloss_d2.modeling.TiledDetector`; None looks at the whole image only.
        overlap: part of a tile that the next one shares, 0.2 by default.
        annotations: COCO file with the class names; None finds them.
        overrides: changes to the config, each `key=value`.
        device: "auto", "cpu" or "cuda".
        skip_unreadable: whether a file that is missing or cannot be read is logged as a warning
            and left out, rather than an error.

    Returns:
        One prediction per image, in order.

    Raises:
        InputError: an argument is wrong, see `Predictor.load`, there are no images, or one cannot
            be read.

    Example:
        >>> from brloss_d2 import predict
        >>> found = predict("output/a/config.yaml", "output/a/model_final.pth", "photos/*.jpg")
        >>> all(len(image.boxes) == len(image.class_names) for image in found)
        True
    """
    _check_batch_size(batch_size)
    _check_num_workers(num_workers)
    inputs = list_inputs(images)
    if not skip_unreadable:
        missing = [path for path in inputs if isinstance(path, str) and not os.path.exists(path)]
        if missing:
            raise InputError(
                f"Image file missing: {first_few(missing)} ({len(missing)} of {len(inputs)}). "
                "skip_unreadable=True leaves out what cannot be read."
            )
    if output is not None:
        _check_path("output", output)
    predictor = Predictor.load(
        config,
        weights,
        score_threshold=score_threshold,
        tile=tile,
        overlap=overlap,
        annotations=annotations,
        overrides=overrides,
        device=device,
    )
    folder = None if output is None else OutputFolder(output, predictor.categories)
    on_error = logger.warning if skip_unreadable else None
    found = predictor.stream(
        inputs, batch_size=batch_size, num_workers=num_workers, on_error=on_error
    )
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
        weights: str | os.PathLike[str] | None = None,
        *,
        score_threshold: float | None = None,
        tile: int | None = None,
        overlap: float | None = None,
        annotations: str | None = None,
        overrides: Sequence[str] = (),
        device: str = "auto",
    ) -> "Predictor":
        """Build the detector of a config with the weights of a training.

        Args:
            config: config file, `config.yaml` of a run, loaded config, or a model with its weights,
                see `predict`.
            weights: checkpoint; code in it does not run. None for a config with its weights.
            score_threshold: lowest score that is kept, 0..1; higher thresholds of the model are
                lowered to it. None takes the one in `calibration.json` next to the weights, or
                leaves it to the model.
            tile: side in pixels of the tiles in which large images are looked at; None leaves
                it to the config.
            overlap: part of a tile that the next one shares; None leaves it to the config.
            annotations: COCO file with the categories; None finds them, see `Categories.find`.
            overrides: changes to the config, each `key=value`.
            device: "auto", "cpu" or "cuda".

        Raises:
            InputError: config, weights, annotations, threshold or device are missing or wrong.
        """
        if weights is None and is_shared(config):
            config, weights = find_shared(os.fspath(config))  # type: ignore[arg-type]
        found_device = choose_device(device, key="device")
        _check_path("weights", weights)
        file = os.fspath(weights)  # type: ignore[arg-type]
        if annotations is not None:
            _check_path("annotations", annotations)
        is_list = isinstance(overrides, Sequence) and not isinstance(overrides, str)
        if not is_list or not all(isinstance(text, str) for text in overrides):
            raise InputError(f"overrides is {overrides!r}: expected a list of 'key=value'.")
        if isinstance(config, DictConfig):
            cfg = copy.deepcopy(config)
            apply_overrides(cfg, overrides)
        else:
            _check_path("config", config)
            cfg, _ = load_config(os.fspath(config), overrides)
        set_tiles(cfg, tile, overlap)
        local_file(file)  # fails early: building the model takes time
        folder = os.path.dirname(os.path.abspath(file))
        threshold = score_threshold
        if threshold is None:
            threshold = _find_threshold(folder, file)
        elif not is_score(threshold):
            raise InputError(
                f"The score threshold is {threshold!r:.40}: expected a number from 0 to 1."
            )
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
        model = instantiate(cfg.model).to(found_device).eval()
        Checkpointer(model, strict=True).load(file)
        model = with_test_augmentation(model, cfg)
        return cls(model, mapper, categories, score_threshold=threshold or 0.0)

    def __call__(self, images: Sequence[np.ndarray | Image.Image]) -> list[Prediction]:
        """Detect objects in a batch of images: arrays (H, W, 3) of uint8, RGB, or of Pillow.

        Images of a batch are padded to a common size. The detections of a network that normalizes
        over the image depend a little on it.

        Raises:
            InputError: they are something else.
        """
        arrays = [read_input(image, number) for number, image in enumerate(list_inputs(images))]
        return self._detect([self._prepare(image) for image in arrays])

    def stream(
        self,
        images: Input | Iterable[Input],
        *,
        batch_size: int = 1,
        num_workers: int = 0,
        on_error: Callable[[InputError], object] | None = None,
    ) -> Iterator[tuple[Prediction, np.ndarray]]:
        """Yield the detections of one image after the other, each with the image as an array.

        Args:
            images: files, or images as for a call.
            batch_size: number of images per batch.
            num_workers: number of threads that read and resize up to `batch_size + num_workers`
                images ahead; 0 reads none ahead, as is right for images that come one by one.
            on_error: function that is called with the error of an unreadable image, which is left
                out; None raises it.

        Raises:
            InputError: an image cannot be read, and there is no `on_error`.
        """
        _check_batch_size(batch_size)
        _check_num_workers(num_workers)

        def read(number: int, given: Input) -> tuple[str, np.ndarray, dict[str, Any]] | InputError:
            try:
                image = read_input(given, number)
            except InputError as error:
                return error
            name = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
            return name, image, self._prepare(image)

        def readable() -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
            inputs = enumerate(each_input(images))
            for found in _computed_ahead(read, inputs, num_workers, batch_size + num_workers):
                if not isinstance(found, InputError):
                    yield found
                elif on_error is None:
                    raise found
                else:
                    on_error(found)

        pending = readable()
        while batch := list(islice(pending, batch_size)):
            names, arrays, inputs = zip(*batch, strict=True)
            for name, image, found in zip(names, arrays, self._detect(inputs), strict=True):
                yield replace(found, file_name=name), image

    def resized(self, image: np.ndarray) -> Tensor:
        """Return the input of the network, (3, H', W') of 0..255, for (H, W, 3) uint8, RGB."""
        pixels = as_array(Image.fromarray(read_input(image)), self.mapper.image_format)
        augmented = T.AugInput(pixels)
        self.mapper.augmentations(augmented)
        return torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())

    def _prepare(self, image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        return {"image": self.resized(image), "height": height, "width": width}

    def _detect(self, inputs: Sequence[dict[str, Any]]) -> list[Prediction]:
        with torch.inference_mode():
            outputs = self.model(inputs) if inputs else []
        return [
            Prediction.of(output["instances"], self.categories, self.score_threshold)
            for output in outputs
        ]


def _find_threshold(folder: str, weights: str) -> float | None:
    """Return the threshold in `calibration.json`; None if there is none for these weights."""
    calibration = load_calibration(folder)
    if calibration is None:
        return None
    if calibration.is_of(lambda: fingerprint(read_weights(local_file(weights))[1])):
        return calibration.score_threshold
    logger.warning(
        "%s is of other weights than %s: its score threshold is not used. Evaluate these "
        "weights (--eval-only) and analyze again.",
        *(os.path.join(folder, CALIBRATION_FILE), weights),
    )
    return None


def _check_batch_size(batch_size: object) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f"The batch size is {batch_size!r}: expected at least 1.")


def _check_path(what: str, path: object) -> None:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError(f"{what} is {path!r:.80}: expected a path.")


def _check_num_workers(num_workers: object) -> None:
    if type(num_workers) is not int or not 0 <= num_workers <= _MOST_WORKERS:
        raise InputError(
            f"The number of workers is {num_workers!r}: expected 0 to {_MOST_WORKERS}."
        )


def _computed_ahead(
    function: Callable[..., _Result], arguments: Iterable[tuple], threads: int, ahead: int
) -> Iterator[_Result]:
    """Yield the results of a function in order, while threads compute the next ones."""
    if not threads:
        yield from starmap(function, arguments)
        return
    pool, pending = ThreadPoolExecutor(threads), deque[Future[_Result]]()
    try:
        for given in arguments:
            pending.append(pool.submit(function, *given))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
