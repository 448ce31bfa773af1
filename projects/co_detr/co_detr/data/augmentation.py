"""Augmentation by one of several policies."""

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T


class OneOf(T.Augmentation):
    """Applies one of several sequences of augmentations, each as likely as any other.

    DETR's training takes either a resized image, or a resized crop of an image resized before.

    Args:
        policies: the sequences.
    """

    def __init__(self, policies: Sequence[Sequence[T.Augmentation]]):
        super().__init__()
        if not policies:
            raise ValueError("policies is empty: expected at least one sequence of augmentations")
        self.policies = [T.AugmentationList(list(policy)) for policy in policies]

    def __call__(self, aug_input: T.AugInput) -> T.TransformList:
        """Augment `aug_input` in place and return what was done."""
        return self.policies[np.random.randint(len(self.policies))](aug_input)
