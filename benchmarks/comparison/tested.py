"""Metrics of detections on the images to test on."""

import json
import math
from collections.abc import Collection

from brloss_d2.data import read_categories
from brloss_d2.evaluation import analyze
from comparison.runs import Run, read_metrics


def metrics_of_test(
    run: Run, json_file: str, limit: int, rare: Collection[str] = ()
) -> dict[str, float]:
    """Evaluate the detections of a finished evaluation.

    Args:
        run: the evaluation.
        json_file: annotations of the images to test on.
        limit: number of detections that count per image and class.
        rare: classes that are averaged apart from the others.

    Returns:
        Metrics by the names of the tables, in percent.
    """
    results = detections(run)
    names = read_categories(json_file)
    if not results:
        undefined = ("AP", "AP50", "AP75", "oLRP", *(f"AP-{name}" for name in names.values()))
        return read_metrics({f"bbox/{name}": math.nan for name in undefined}, rare)
    line: dict[str, float] = {}
    for task in ("bbox", *(("segm",) if "segmentation" in results[0] else ())):
        found = analyze(json_file, results, names, task=task, max_dets_per_image=limit)
        line.update({f"{task}/{name}": value for name, value in found.metrics.items()})
        classes = zip(found.class_names, found.class_ap, strict=True)
        line.update({f"{task}/AP-{name}": float(value) for name, value in classes})
    return read_metrics(line, rare)


def detections(run: Run) -> list[dict]:
    """Return the detections of a finished evaluation in COCO format."""
    return json.loads((run.output / "inference" / "coco_instances_results.json").read_text())
