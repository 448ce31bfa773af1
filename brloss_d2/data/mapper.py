"""Reading and augmentation of one image, with errors that name the file."""

import os
from typing import Any

import torch
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image
from detectron2.structures import BitMasks, PolygonMasks

from brloss_d2.errors import InputError


class DetectionMapper(DatasetMapper):
    """detectron2's `DatasetMapper` with errors that name the image file.

    In training the result always has `instances` with `gt_boxes` (XYXY, pixels of the augmented
    image), `gt_classes` and, with `use_instance_mask`, `gt_masks`, possibly of length 0: an image
    without objects is a training image like any other. Never returns None.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dict of detectron2's dataset format to one of its model input format.

        Raises:
            InputError: the image is missing, unreadable, or not as large as the JSON says.
        """
        try:
            return super().__call__(dataset_dict)
        except Exception as error:
            file_name = dataset_dict["file_name"]
            if not os.path.isfile(file_name):
                raise InputError(f"Image file missing: {file_name}") from error
            # Pillow raises almost anything for a damaged file, ValueError included. Reading the
            # file once more separates its faults from those of an augmentation.
            try:
                image = read_image(file_name, format=self.image_format)
                check_image_size(dict(dataset_dict), image)
            except SizeMismatchError as mismatch:
                raise InputError(
                    "Image and annotations disagree about the size (width, height): "
                    f"{mismatch} An EXIF rotation of the image is applied before the comparison."
                ) from error
            except Exception as problem:
                raise InputError(
                    f"Image file unreadable: {file_name} ({type(problem).__name__}: {problem}). "
                    "Replace it, or remove it from the annotations."
                ) from error
            raise

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        instances = dataset_dict["instances"]
        # detectron2 creates the field from the first object, so that an empty image has none.
        if self.use_instance_mask and not len(instances):
            polygons = self.instance_mask_format == "polygon"
            empty = torch.zeros((0, *instances.image_size), dtype=torch.bool)
            instances.gt_masks = PolygonMasks([]) if polygons else BitMasks(empty)
