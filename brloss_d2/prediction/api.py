"""Detection in three lines."""

import logging
import os
from collections.abc import Iterable, Sequence

import numpy as np
from omegaconf import DictConfig

from brloss_d2.errors import InputError
from brloss_d2.prediction.images import find_images
from brloss_d2.prediction.predictor import Predictor
from brloss_d2.prediction.results import OutputFolder, Prediction

logger = logging.getLogger(__name__)

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

        predictions = brloss_d2.predict("output/a/config.yaml", "output/a/model_final.pth", "b/*")

    For image after image build a `brloss_d2.prediction.Predictor` once.

    Args:
        config, weights, score_threshold, annotations, overrides, device: see `Predictor.load`.
        images: files, folders, patterns; or arrays (H, W, 3) of uint8, RGB, but not both.
        output: a folder for pictures and COCO files, see `OutputFolder`; None writes nothing.
        batch_size: images that go through the model together.

    Returns:
        One for each image, in order. A file that cannot be read is told in a warning and left out.

    Raises:
        InputError: see `Predictor.load`; or there are no images.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}: expected at least 1.")
    is_one = isinstance(images, str | os.PathLike | np.ndarray)
    images = [images] if is_one else list(images)
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    if arrays and len(arrays) < len(images):
        raise InputError("Images are arrays and paths: expected one or the other.")
    files = [] if arrays else find_images(images)
    predictor = Predictor.load(
        config,
        weights,
        score_threshold=score_threshold,
        annotations=annotations,
        overrides=overrides,
        device=device,
    )
    folder = None if output is None else OutputFolder(output, predictor.categories)
    found = predictor.stream(arrays or files, batch_size=batch_size, on_error=logger.warning)
    predictions = []
    for prediction, image in found:
        predictions.append(prediction)
        if folder is not None:
            folder.add(prediction, image)
    if folder is not None:
        folder.write()
    return predictions
