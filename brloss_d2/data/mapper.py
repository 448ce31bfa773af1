"""Reading and augmentation of one image, with errors that name the file."""

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import annotations_to_instances, transform_proposals
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils.file_io import PathManager

from brloss_d2.data.images import check_size, read_image
from brloss_d2.errors import InputError


class DetectionMapper(DatasetMapper):
    """detectron2's `DatasetMapper` with the package's reader of images and errors that name a file.

    In training the result always has `instances` with `gt_boxes` (XYXY, pixels of the augmented
    image), `gt_classes` and, with `use_instance_mask`, `gt_masks`, possibly of length 0: an image
    without objects is a training image like any other. Never returns None. Ground truth of semantic
    segmentation is not read.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dict of detectron2's dataset format to one of its model input format.

        Raises:
            InputError: the image is missing, unreadable, or not as large as the JSON says, or an
                object has no mask that the mapper can use.
        """
        record = copy.deepcopy(dataset_dict)
        inputs = T.AugInput(self._read(record))
        transforms = self.augmentations(inputs)
        height, width = inputs.image.shape[:2]
        record["image"] = torch.from_numpy(inputs.image.transpose(2, 0, 1).copy())
        if self.proposal_topk is not None:
            transform_proposals(
                record, (height, width), transforms, proposal_topk=self.proposal_topk
            )
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, (height, width))
        return record

    def _read(self, record: dict[str, Any]) -> np.ndarray:
        """Return the image of a record, (H, W, C), whose height and width are completed."""
        file = record["file_name"]
        try:
            image = read_image(PathManager.get_local_path(file), self.image_format)
        except InputError as error:
            message = f"{error} Replace it, or remove it from the annotations."
            raise InputError(message) from error
        height, width = image.shape[:2]
        record.setdefault("width", width)
        record.setdefault("height", height)
        check_size(file, (width, height), (record["width"], record["height"]))
        return image

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Any, image_shape: tuple[int, int]
    ) -> None:
        objects = [a for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        if self.use_instance_mask:
            file = dataset_dict["file_name"]
            masks = [a["segmentation"] for a in objects if a.get("segmentation")]
            if len(masks) < len(objects):
                raise InputError(
                    f"{len(objects) - len(masks)} of {len(objects)} objects of {file} have no "
                    "mask, or none that is good, and the mapper has use_instance_mask=True."
                )
            if self.instance_mask_format == "polygon" and any(isinstance(m, dict) for m in masks):
                raise InputError(
                    f"{file} has a mask in RLE, which polygons cannot hold: set "
                    "instance_mask_format=bitmask in dataloader.train.mapper."
                )
        # detectron2 creates the field of masks from the first object, so that an empty image has
        # none, from which it would recompute boxes.
        if objects:
            super()._transform_annotations(dataset_dict, transforms, image_shape)
        else:
            del dataset_dict["annotations"]
            dataset_dict["instances"] = annotations_to_instances([], image_shape)
        instances = dataset_dict["instances"]
        if self.use_instance_mask and not len(instances):
            polygons = self.instance_mask_format == "polygon"
            empty = torch.zeros((0, *instances.image_size), dtype=torch.bool)
            instances.gt_masks = PolygonMasks([]) if polygons else BitMasks(empty)
