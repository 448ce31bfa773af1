"""Augmentation of the published recipe."""

from brloss_d2.projects.co_detr.data.augmentation import OneOf
from brloss_d2.projects.co_detr.data.mapper import MinBoxSizeMapper

__all__ = ["MinBoxSizeMapper", "OneOf"]
