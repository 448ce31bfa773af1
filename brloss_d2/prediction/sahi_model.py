"""A detector of this package for SAHI, https://github.com/obss/sahi, which predicts in slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from brloss_d2.prediction.predictor import Predictor
from brloss_d2.prediction.results import Prediction
from brloss_d2.utils.optional import import_optional

try:
    from sahi.models.base import DetectionModel
except ImportError:  # said when a model is built
    DetectionModel = object


class SahiModel(DetectionModel):
    """Detection model of SAHI, for `sahi.predict.get_sliced_prediction` and the like.

    Categories have the ids of the predictor's; masks become polygons, as SAHI stores them.

    Args:
        predictor: detector, without tiles of its own.
        **options: arguments of SAHI's `DetectionModel`, such as `confidence_threshold`, which is
            that of the predictor by default.

    Raises:
        InputError: SAHI is missing.
    """

    def __init__(self, predictor: Predictor, **options: Any):
        import_optional("sahi", "sahi")
        device = next((p.device for p in predictor.model.parameters()), torch.device("cpu"))
        defaults = {"confidence_threshold": predictor.score_threshold, "device": str(device)}
        super().__init__(model=predictor, **{**defaults, **options})

    def set_model(self, model: Predictor, **kwargs: Any) -> None:
        """Take a predictor, whose categories become those of SAHI."""
        self.model = model
        ids = map(str, model.categories.ids)
        self.category_mapping = dict(zip(ids, model.categories.names, strict=True))

    def perform_inference(self, image: np.ndarray) -> None:
        """Detect objects in an image, (H, W, 3) uint8, RGB."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Detect objects in a batch of images, each (H, W, 3) uint8, RGB."""
        self._original_predictions = self.model(images)

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: list[Any] | None = None,
        full_shape_list: list[Any] | None = None,
    ) -> None:
        from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list

        found = self._original_predictions
        shifts = fix_shift_amount_list(shift_amount_list or [[0, 0]] * len(found))
        shapes = fix_full_shape_list(full_shape_list) or [None] * len(found)
        self._object_prediction_list_per_image = [
            self._objects(*of_image) for of_image in zip(found, shifts, shapes, strict=True)
        ]

    def _objects(
        self, found: Prediction, shift: Sequence[int], full_shape: Sequence[int] | None
    ) -> list[Any]:
        """Return the detections of an image as SAHI's objects, moved to their place."""
        from sahi.prediction import ObjectPrediction
        from sahi.utils.cv import get_coco_segmentation_from_bool_mask

        masks = [None] * len(found) if found.masks is None else found.masks
        rows = zip(found.boxes.tolist(), found.scores.tolist(), masks, strict=True)
        objects = []
        for i, (box, score, mask) in enumerate(rows):
            polygons = None if mask is None else get_coco_segmentation_from_bool_mask(mask)
            if score >= self.confidence_threshold:
                objects.append(
                    ObjectPrediction(
                        bbox=None if polygons else box,
                        segmentation=polygons or None,
                        category_id=found.category_ids[i],
                        category_name=found.class_names[i],
                        score=score,
                        shift_amount=list(shift),
                        full_shape=full_shape,
                    )
                )
        return objects
