"""Which prediction answers for which object."""

from .iou import MaxIoUMatcher, inside_padded_image

__all__ = ["MaxIoUMatcher", "inside_padded_image"]
