"""Augmentation and mapper of the published recipe."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from brloss_d2.data import DetectionMapper


class OneOf(T.Augmentation):
    """One of several sequences of augmentations, drawn uniformly per image.

    DETR trains either on a resized image, or on a resized crop of an image that was resized before
    (Carion et al., ECCV 2020, section 4).

    Args:
        policies: sequences of augmentations, at least one.

    Raises:
        ValueError: `policies` is empty.
    """

    def __init__(self, policies: Sequence[Sequence[T.Augmentation]]) -> None:
        super().__init__()
        if not policies:
            raise ValueError("policies is empty: expected at least one sequence of augmentations")
        self.policies = [T.AugmentationList(list(policy)) for policy in policies]

    def __call__(self, aug_input: T.AugInput) -> T.TransformList:
        """Augment `aug_input` in place and return the transforms that were applied."""
        return self.policies[np.random.randint(len(self.policies))](aug_input)


class MinBoxSizeMapper(DetectionMapper):
    """`DetectionMapper` without the objects that are too thin in the original image.

    Args:
        min_box_size: smallest width and height of a box, in pixels before augmentation.
        mapper: arguments of `DetectionMapper`.
    """

    def __init__(self, *, min_box_size: float = 1.0, **mapper: Any) -> None:
        super().__init__(**mapper)
        self.min_box_size = min_box_size

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dictionary of the dataset; see `DetectionMapper`."""
        if "annotations" in dataset_dict:
            kept = []
            for annotation in dataset_dict["annotations"]:
                box = annotation["bbox"], annotation["bbox_mode"]
                if min(BoxMode.convert(*box, BoxMode.XYWH_ABS)[2:]) >= self.min_box_size:
                    kept.append(annotation)
            dataset_dict = {**dataset_dict, "annotations": kept}
        return super().__call__(dataset_dict)
