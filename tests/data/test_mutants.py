"""Random search: no change of a file ends in a traceback, or in other numbers without a word."""

import copy
import json
import logging
import os
import random

import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Boxes, Instances

from brloss_d2.data import CustomDataSummary, check_coco_json, load_coco_dataset
from brloss_d2.errors import InputError
from brloss_d2.evaluation import COCOEvaluator
from tests.helpers import coco_files as files

# None of them is a plausible number of pixels, or the id of another record.
NUMBERS = [float("nan"), float("inf"), 10**9, 2**60, 10**30, 10**400, -(10**9), 1e300]
TEXTS = ["", "x", "0", "9.5", "\x1b[31m", "\ud800", "é" * 90]
MASKS = [[[1, 2, 3, 4]], [[1e300] * 6], [[1, 2, 3, 4, 5, None]], {"size": [20, 30], "counts": "zz"}]
MASKS += [{"size": [20, 30], "counts": counts} for counts in ([1, 2], [-1, 601], [600], None)]
VALUES = [None, True, False, [], {}, [None], [[]], {"a": 1}, *NUMBERS, *TEXTS, *MASKS]


def good():
    data = files.content(images=5)
    for number, record in enumerate(data["annotations"]):
        x, y, w, h = record["bbox"] = [2.0 + number, 3.0, 10.0, 8.0]
        record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    coded = mask_util.frPyObjects(data["annotations"][0]["segmentation"], 20, 30)[0]
    data["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": coded["counts"].decode()}
    data["annotations"][1]["iscrowd"] = 1
    return data


def changed(rng, data):
    """Change one value, or one key of all records; return what was done."""
    data = copy.deepcopy(data)
    section = rng.choice(["images", "annotations", "annotations", "annotations", "categories"])
    parent, path = data, [section]
    while isinstance(parent[path[-1]], list | dict) and parent[path[-1]] and rng.random() < 0.85:
        parent = parent[path[-1]]
        path.append(rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent))))
    value, how = (
        copy.deepcopy(rng.choice(VALUES)),
        rng.choice(["set", "set", "drop", "twice", "all"]),
    )
    if how == "drop":
        del parent[path[-1]]
    elif how == "twice" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[path[-1]]))
    elif how == "all" and len(path) > 2:
        for record in data[section]:
            record[path[2]] = copy.deepcopy(value)
    else:
        parent[path[-1]] = value
    return data, f"{how} {path} {str(value)[:30]!r}"


def numbers(path, folder, expected, masks):
    """Return what the table says, what reaches the model, and AP of a perfect detector."""
    summary = check_coco_json(path, folder, masks=masks)
    records = load_coco_dataset("test_mutants", path, folder, masks=masks)
    mapped = files.mapped(sorted(records, key=lambda r: r["file_name"]), masks=masks)
    assert sum(map(len, mapped)) == summary.boxes
    seen = [
        (
            found.gt_boxes.tensor.tolist(),
            found.gt_classes.tolist(),
            found.gt_masks.tensor.sum((1, 2)).tolist() if masks else [],
        )
        for found in mapped
    ]
    image_ids = {os.path.basename(record["file_name"]): record["image_id"] for record in records}
    evaluator = COCOEvaluator(
        "test_mutants", tasks=("bbox", "segm") if masks else ("bbox",), distributed=False
    )
    evaluator.reset()
    for image in expected["images"]:
        own = [a for a in expected["annotations"] if a["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in own]).reshape(-1, 4)
        found = Instances((20, 30), scores=torch.ones(len(own)))
        found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
        found.pred_classes = torch.tensor([int(a["category_id"] == 7) for a in own]).long()
        found.pred_masks = torch.zeros(len(own), 20, 30)
        for mask, (x, y, w, h) in zip(found.pred_masks, boxes.long().tolist(), strict=True):
            mask[y : y + h, x : x + w] = 1
        if image["file_name"] in image_ids:
            evaluator.process([{"image_id": image_ids[image["file_name"]]}], [{"instances": found}])
    results = {
        (task, key): value
        for task, values in evaluator.evaluate().items()
        for key, value in values.items()
        if "-" not in key and value == value  # no names of classes, no NaN
    }
    return str(CustomDataSummary(train=None, val=summary)), seen, results


@pytest.mark.parametrize("masks", [False, True])
def test_no_traceback_and_no_silence(tmp_path, caplog, masks):
    caplog.set_level(logging.WARNING, logger="detectron2")
    base, rng, outcomes = good(), random.Random(3), []
    path = files.write(tmp_path, base)
    table, *expected = numbers(path, str(tmp_path), base, masks)
    assert expected[1]["bbox", "AP"] == pytest.approx(100)
    for _ in range(150):
        mutant, what = changed(rng, base)
        (tmp_path / "instances.json").write_bytes(
            json.dumps(mutant).encode("utf-8", "surrogatepass")
        )
        message = ""
        try:
            said, *found = numbers(path, str(tmp_path), base, masks)
        except InputError as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{what}: {error!r}") from error
        if message:
            assert message.replace("\n", "").isprintable() and len(message) < 900, what
        else:
            assert found == expected or said != table, what
        outcomes.append("refused" if message else "equal" if found == expected else "told")
    assert min(map(outcomes.count, ("refused", "equal", "told"))) > 0
