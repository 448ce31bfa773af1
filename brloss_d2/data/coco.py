"""Datasets in COCO format as detectron2 dicts, without hidden state.

The config node `L(load_coco_dataset)(names=..., json_file=..., image_root=...)` holds all there is
to know about a dataset, so that the `config.yaml` of a run can be loaded and evaluated later.
"""

import logging
import os
from collections import Counter
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from brloss_d2.data.coco_file import DROPPED, read_coco
from brloss_d2.data.file_names import locate_images
from brloss_d2.errors import InputError
from brloss_d2.utils.text import counted

logger = logging.getLogger(__name__)

_COPIED = ("iscrowd", "bbox", "segmentation", "keypoints")


def load_coco_dataset(
    names: str,
    json_file: str,
    image_root: str,
    masks: bool | None = None,
    unannotated: bool = False,
) -> list[dict[str, Any]]:
    """Load a COCO-format dataset and register its metadata under `names`.

    Class ids are 0..K-1 in the order of the category ids, as in detectron2. Images without
    objects are kept: they teach what is background. Boxes without area or outside of their image
    are dropped: they overlap nothing that a detector sees, so that no prediction can be right, and
    their regression targets contain log(0).

    Args:
        names: name of the dataset; plural because the config node of the evaluator finds it in
            `dataloader.test.dataset.names`, as with `get_detection_dataset_dicts`.
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.
        masks: whether every object needs a mask; False does not look at `segmentation`, and None
            loads the masks that are good.
        unannotated: whether the list of annotations may be missing, as in `read_coco`.

    Returns:
        One dict per image, in detectron2's dataset format; boxes XYWH in pixels.

    Raises:
        InputError: `json_file` does not exist or has a mistake, or `names` is a built-in dataset.
    """
    if not os.path.isfile(json_file):
        raise InputError(f"The annotations of dataset {names!r} are missing: {json_file}")
    content = read_coco(json_file, masks=masks, unannotated=unannotated)
    labels = {id_: label for label, id_ in enumerate(content.categories)}
    register_coco_metadata(
        names,
        json_file,
        image_root,
        masks=masks,
        thing_classes=list(content.categories.values()),
        thing_dataset_id_to_contiguous_id=labels,
    )
    file_names = [image["file_name"] for image in content.images]
    for image, path in zip(content.images, locate_images(file_names, image_root), strict=True):
        image["path"] = path or os.path.join(image_root, image["file_name"])
    records: dict[int, dict[str, Any]] = {
        image["id"]: {
            "file_name": image["path"],
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
        for image in sorted(content.images, key=lambda image: image["id"])
    }
    for annotation in content.annotations:
        if annotation["role"] not in DROPPED:
            loaded = {key: annotation[key] for key in _COPIED if key in annotation}
            label = labels[annotation["category_id"]]
            loaded.update(category_id=label, bbox_mode=BoxMode.XYWH_ABS)
            records[annotation["image_id"]]["annotations"].append(loaded)
    roles = Counter(annotation["role"] for annotation in content.annotations)
    told = MetadataCatalog.get(names).get("dropped", {})  # by the table of a custom dataset
    for kind in DROPPED:
        if roles[kind] != told.get(kind, 0):
            logger.warning("%s: dropped %s %s.", names, counted(roles[kind], "box"), kind)
    return list(records.values())


def register_coco_metadata(name: str, json_file: str, image_root: str, **more: Any) -> None:
    """Register the metadata that `COCOEvaluator` needs. The function is idempotent.

    Args:
        name: name of the dataset.
        json_file: path of the annotations.
        image_root: folder that the file names in the JSON are relative to.
        **more: other metadata, such as `masks`, whether every object has one, and `dropped`, the
            numbers of boxes that need no warning when they are dropped, by kind.

    Raises:
        InputError: `name` is one of the datasets that detectron2 registers itself.
    """
    if name in DatasetCatalog:
        raise InputError(f"The name {name!r} belongs to a registered dataset; choose another.")
    values = {"json_file": json_file, "image_root": image_root, **more}
    known = MetadataCatalog.get(name)
    if any(known.get(key, value) != value for key, value in values.items()):
        # Metadata can be set only once, and the classes may differ too.
        MetadataCatalog.pop(name)
    MetadataCatalog.get(name).set(evaluator_type="coco", **values)
