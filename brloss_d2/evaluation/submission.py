"""Detections as evaluation servers take them, which keep the annotations of a test set."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from heapq import nlargest
from operator import itemgetter
from typing import Any

from brloss_d2.errors import InputError
from brloss_d2.utils.files import write_text

_NAME = re.compile(r"[A-Za-z0-9.-][A-Za-z0-9._-]*")


def check_submission_name(name: object) -> None:
    """Check that a name can be a part of the name of a file.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"The name of the submission is {name!r:.80}: expected letters, digits and '.', '-', "
            "'_', which become a part of the name of the file."
        )


def write_submission(
    results: Iterable[Mapping[str, Any]],
    folder: str,
    name: str,
    *,
    json_file: str,
    limit: int = 100,
) -> list[str]:
    """Write the files that the evaluation server of COCO takes, one for boxes and one for masks.

    Both are called `detections_<test set>_<name>_results.json`, as the server demands, in the
    subfolders `bbox` and `segm`. The one of masks has no boxes: the server would take their areas
    for those of the masks. Boxes are rounded to a thousandth of a pixel (hundredths can be seen in
    the AP of a few images); scores keep the digits of float32, so that no two become equal.

    Args:
        results: detections in COCO format: image_id, category_id, bbox (XYWH), score, and of a
            model with masks segmentation (RLE whose counts are text).
        folder: folder of the two subfolders, which are created.
        name: name of the detector, in letters, digits and ".", "-", "_".
        json_file: path of the images of the test set. The name of the set is what follows the last
            "_" of the name of the file: "test-dev2017" of `image_info_test-dev2017.json`.
        limit: number of detections per image to keep, those of the highest scores.

    Returns:
        Paths of the files; one for a model without masks.

    Raises:
        InputError: the name is no part of a file name, or a file cannot be written.

    Example:
        >>> from brloss_d2.evaluation import write_submission
        >>> found = {"image_id": 1, "category_id": 18, "bbox": [2, 3, 4.5, 8], "score": 0.5}
        >>> write_submission([found], "output/a", "rs", json_file="image_info_test-dev2017.json")
        ['output/a/bbox/detections_test-dev2017_rs_results.json']
    """
    check_submission_name(name)
    stem = os.path.splitext(os.path.basename(json_file))[0]
    file_name = f"detections_{stem.rpartition('_')[2]}_{name}_results.json"
    of_image = defaultdict(list)
    for result in results:
        of_image[result["image_id"]].append(result)
    kept = [r for found in of_image.values() for r in nlargest(limit, found, itemgetter("score"))]
    tasks = {"bbox": [_entry(r, bbox=[round(x, 3) for x in r["bbox"]]) for r in kept]}
    if masks := [_entry(r, segmentation=r["segmentation"]) for r in kept if "segmentation" in r]:
        tasks["segm"] = masks
    paths = [os.path.join(folder, task, file_name) for task in tasks]
    for path, entries in zip(paths, tasks.values(), strict=True):
        write_text(path, json.dumps(entries))
    return paths


def _entry(result: Mapping[str, Any], **shape: Any) -> dict[str, Any]:
    score = float(f"{result['score']:.9g}")  # as many digits as tell numbers of float32 apart
    ids = {key: int(result[key]) for key in ("image_id", "category_id")}  # NumPy's are no JSON
    return {**ids, **shape, "score": score}
