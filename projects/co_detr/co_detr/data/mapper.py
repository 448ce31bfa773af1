"""The mapper of the published recipe."""

from typing import Any

from detectron2.structures import BoxMode

from brloss_d2.data import DetectionMapper


class MinBoxSizeMapper(DetectionMapper):
    """`DetectionMapper` that takes no notice of objects which are too thin in the original image.

    Args:
        min_box_size: smallest width and height of a box, in pixels before any augmentation.
        mapper: see detectron2's `DatasetMapper`.
    """

    def __init__(self, *, min_box_size: float = 1.0, **mapper: Any):
        super().__init__(**mapper)
        self.min_box_size = min_box_size

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dict; see `DetectionMapper`."""
        if "annotations" in dataset_dict:
            kept = [a for a in dataset_dict["annotations"] if self._is_large(a)]
            dataset_dict = {**dataset_dict, "annotations": kept}
        return super().__call__(dataset_dict)

    def _is_large(self, annotation: dict[str, Any]) -> bool:
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
        return min(box[2:]) >= self.min_box_size
