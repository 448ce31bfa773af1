"""Which prediction answers for which object."""

from brloss_d2.modeling.label_assignment.iou import MaxIoUMatcher, inside_padded_image

__all__ = ["MaxIoUMatcher", "inside_padded_image"]
