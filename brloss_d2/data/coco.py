"""Load a COCO-format file as detectron2 dicts, without hidden state.

The config node `L(load_coco_dataset)(names=..., json_file=..., image_root=...)` says all there is
to know about a data set, so that the `config.yaml` of a run can be loaded and evaluated later.
"""

import logging
import os
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from brloss_d2.data.checks import has_area
from brloss_d2.errors import InputError

logger = logging.getLogger(__name__)


def load_coco_dataset(names: str, json_file: str, image_root: str) -> list[dict[str, Any]]:
    """Load a COCO-format data set and register its metadata under `names`.

    Class ids are 0..K-1 in the order of the category ids, as in detectron2. Images without
    objects are kept: they teach what is background.

    Args:
        names: the name of the data set; plural because `dataloader.test.dataset.names` is where
            the evaluator's config node finds it, as with `get_detection_dataset_dicts`.
        json_file: the annotations.
        image_root: the folder that the file names in the JSON are relative to.

    Returns:
        One dict for each image, in detectron2's data set format; boxes XYWH in pixels.

    Raises:
        InputError: `json_file` does not exist, or `names` is a built-in data set.
    """
    if not os.path.isfile(json_file):
        raise InputError(f"The annotations of data set {names!r} are missing: {json_file}")
    register_coco_metadata(names, json_file, image_root)
    records = load_coco_json(json_file, image_root, names)
    dropped = sum(_drop_boxes_without_area(record) for record in records)
    if dropped:
        logger.warning("%s: dropped %d boxes without area.", names, dropped)
    return records


def register_coco_metadata(name: str, json_file: str, image_root: str) -> None:
    """Register what COCOEvaluator needs to know of a data set. Doing it twice is harmless.

    Raises:
        InputError: `name` is one of the data sets that detectron2 registers itself.
    """
    if name in DatasetCatalog:
        raise InputError(f"The name {name!r} belongs to a registered data set; choose another.")
    paths = {"json_file": json_file, "image_root": image_root}
    known = MetadataCatalog.get(name)
    if any(known.get(key) != path for key, path in paths.items()):
        # Metadata can be set only once, and the classes may differ too.
        MetadataCatalog.pop(name)
    MetadataCatalog.get(name).set(evaluator_type="coco", **paths)


def _drop_boxes_without_area(record: dict[str, Any]) -> int:
    """Drop them in place and return how many.

    Such a box overlaps nothing, so that no prediction can be right about it, and its regression
    target contains log(0).
    """
    before = len(record["annotations"])
    record["annotations"] = [a for a in record["annotations"] if has_area(a)]
    return before - len(record["annotations"])
