"""Cityscapes: instance AP of its own benchmark, and COCO-style box and mask AP and oLRP."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.evaluation import CityscapesInstanceEvaluator, DatasetEvaluators
from detectron2.utils import comm

from brloss_d2.data import register_coco_metadata
from brloss_d2.errors import InputError
from brloss_d2.evaluation.coco import COCOEvaluator
from brloss_d2.evaluation.replace import numpy_with, replaced


class CityscapesEvaluator(DatasetEvaluators):
    """COCO-style evaluation and that of the Cityscapes benchmark.

    The results are `bbox` and `segm`, COCO-style as in the ranking-loss papers, and
    `segm_cityscapes`, the AP and AP50 of the benchmark.

    Args:
        dataset_name: name of a dataset with `image_dir` and `gt_dir` in its metadata, such as
            `cityscapes_fine_instance_seg_val`.
        output_dir: folder for the ground truth in COCO format and the predictions.
        tasks: `bbox`, `segm` or both; `("bbox",)` for a detector without masks, which the
            benchmark does not evaluate.
    """

    def __init__(
        self, dataset_name: str, output_dir: str, *, tasks: Sequence[str] = ("bbox", "segm")
    ):
        evaluators = [_COCOStyleEvaluator(dataset_name, output_dir, tasks)]
        if "segm" in tasks:
            evaluators.append(_BenchmarkEvaluator(dataset_name))
        super().__init__(evaluators)


class _COCOStyleEvaluator(COCOEvaluator):
    def __init__(self, dataset_name: str, output_dir: str, tasks: Sequence[str]):
        json_file = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
        if comm.is_main_process():
            os.makedirs(output_dir, exist_ok=True)
            with open(json_file, "w") as file:
                json.dump(coco_ground_truth(dataset_name), file)
        comm.synchronize()
        name = f"{dataset_name}_coco_format"
        metadata = MetadataCatalog.get(dataset_name)
        classes = metadata.thing_classes
        register_coco_metadata(name, json_file, metadata.image_dir, thing_classes=classes)
        super().__init__(name, tuple(tasks), output_dir=output_dir)
        self._ids = {image["file_name"]: image["id"] for image in self._coco_api.imgs.values()}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        # detectron2 uses the file names as ids of these images; the COCO format needs numbers.
        inputs = [{**image, "image_id": self._ids[image["file_name"]]} for image in inputs]
        super().process(inputs, outputs)


class _BenchmarkEvaluator(CityscapesInstanceEvaluator):
    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        if not all(output["instances"].has("pred_masks") for output in outputs):
            raise InputError(
                "Cityscapes evaluates masks, and the model predicts none. For boxes alone give "
                "'dataloader.evaluator.tasks=[bbox]'."
            )
        super().process(inputs, outputs)

    def evaluate(self) -> dict[str, Any] | None:
        from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling

        # numpy 2.4 has no in1d. The scripts would write a matches.json into the current folder,
        # which nothing reads and whose numpy numbers the json module refuses.
        with replaced(
            evalInstanceLevelSemanticLabeling,
            np=numpy_with(in1d=np.isin),
            writeDict2JSON=lambda content, file_name: None,
        ):
            results = super().evaluate()
        return results and {"segm_cityscapes": results["segm"]}


def coco_ground_truth(dataset_name: str) -> dict[str, Any]:
    """Return the ground truth of a Cityscapes split in COCO format.

    The masks are the visible pixels of the id images, whereas the dataset that detectron2 registers
    for training has polygons without holes. detectron2 leaves out objects that are one pixel wide
    or high.

    Args:
        dataset_name: name of a dataset with `image_dir`, `gt_dir` and `thing_classes` in its
            metadata.
    """
    metadata = MetadataCatalog.get(dataset_name)
    records = load_cityscapes_instances(
        metadata.image_dir, metadata.gt_dir, from_json=False, to_polygons=False
    )
    records.sort(key=lambda record: record["file_name"])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        image = {key: record[key] for key in ("file_name", "height", "width")}
        images.append({"id": len(images) + 1, **image})
        for instance in record["annotations"]:
            mask = instance["segmentation"]
            counts = mask["counts"].decode("ascii")
            annotation = {
                "id": len(annotations) + 1,
                "image_id": len(images),
                "category_id": instance["category_id"],
                "bbox": mask_util.toBbox(mask).tolist(),
                "area": int(mask_util.area(mask)),
                "iscrowd": int(instance["iscrowd"]),
                "segmentation": {"size": list(mask["size"]), "counts": counts},
            }
            annotations.append(annotation)
    categories = [{"id": i, "name": name} for i, name in enumerate(metadata.thing_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}
