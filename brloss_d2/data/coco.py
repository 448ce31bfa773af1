"""Datasets in COCO format as detectron2 dicts, without hidden state.

The config node `L(load_coco_dataset)(names=..., json_file=..., image_root=...)` holds all there is
to know about a dataset, so that the `config.yaml` of a run can be loaded and evaluated later.
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
    """Load a COCO-format dataset and register its metadata under `names`.

    Class ids are 0..K-1 in the order of the category ids, as in detectron2. Images without
    objects are kept: they teach what is background. Boxes without area are dropped: they overlap
    nothing, so that no prediction can be right, and their regression targets contain log(0).

    Args:
        names: name of the dataset; plural because the config node of the evaluator finds it in
            `dataloader.test.dataset.names`, as with `get_detection_dataset_dicts`.
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.

    Returns:
        One dict per image, in detectron2's dataset format; boxes XYWH in pixels.

    Raises:
        InputError: `json_file` does not exist, or `names` is a built-in dataset.
    """
    if not os.path.isfile(json_file):
        raise InputError(f"The annotations of dataset {names!r} are missing: {json_file}")
    register_coco_metadata(names, json_file, image_root)
    records = load_coco_json(json_file, image_root, names)
    dropped = 0
    for record in records:
        kept = [a for a in record["annotations"] if has_area(a)]
        dropped += len(record["annotations"]) - len(kept)
        record["annotations"] = kept
    if dropped:
        logger.warning("%s: dropped %d boxes without area.", names, dropped)
    return records


def register_coco_metadata(name: str, json_file: str, image_root: str) -> None:
    """Register the metadata that `COCOEvaluator` needs. The function is idempotent.

    Args:
        name: name of the dataset.
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.

    Raises:
        InputError: `name` is one of the datasets that detectron2 registers itself.
    """
    if name in DatasetCatalog:
        raise InputError(f"The name {name!r} belongs to a registered dataset; choose another.")
    paths = {"json_file": json_file, "image_root": image_root}
    known = MetadataCatalog.get(name)
    if any(known.get(key) != path for key, path in paths.items()):
        # Metadata can be set only once, and the classes may differ too.
        MetadataCatalog.pop(name)
    MetadataCatalog.get(name).set(evaluator_type="coco", **paths)
