"""Datasets in COCO format: checks before training, loading, reading of images."""

from brloss_d2.data.augmentation import (
    BoxAwareMapper,
    Expand,
    MinIoUCrop,
    PhotometricDistortion,
)
from brloss_d2.data.catalog import check_registered_dataset
from brloss_d2.data.categories import (
    CATEGORIES_FILE,
    in_order,
    read_categories,
    write_categories,
)
from brloss_d2.data.checks import CocoSummary, check_coco_json
from brloss_d2.data.coco import load_coco_dataset, register_coco_metadata
from brloss_d2.data.coco_file import CocoFile, read_coco
from brloss_d2.data.custom import CustomDataSummary, apply_custom_data, note_limits
from brloss_d2.data.folders import DataFolder, read_folder
from brloss_d2.data.image_files import check_custom_images
from brloss_d2.data.images import read_image
from brloss_d2.data.mapper import DetectionMapper
from brloss_d2.data.mixing import MixingMapper
from brloss_d2.data.repeat_factors import ceil_repeat_factors
from brloss_d2.data.sources import CustomData
from brloss_d2.data.synthetic.miniatures import write_miniatures
from brloss_d2.data.synthetic.shapes import write_shapes

__all__ = [
    "CATEGORIES_FILE",
    "BoxAwareMapper",
    "CocoFile",
    "CocoSummary",
    "CustomData",
    "CustomDataSummary",
    "DataFolder",
    "DetectionMapper",
    "Expand",
    "MinIoUCrop",
    "MixingMapper",
    "PhotometricDistortion",
    "apply_custom_data",
    "ceil_repeat_factors",
    "check_coco_json",
    "check_custom_images",
    "check_registered_dataset",
    "in_order",
    "load_coco_dataset",
    "note_limits",
    "read_categories",
    "read_coco",
    "read_folder",
    "read_image",
    "register_coco_metadata",
    "write_categories",
    "write_miniatures",
    "write_shapes",
]
