"""Metrics of saved detections, and their bootstrap intervals."""

import json
import math
from collections.abc import Collection, Iterable, Sequence

from brloss_d2.data import read_categories
from brloss_d2.evaluation import Evaluation, analyze, evaluate_detections
from brloss_d2.evaluation.protocols import read_ground_truth
from comparison.intervals import MOST_IMAGES, bootstrap, interval
from comparison.runs import COMMON, PREFIXES, RARE, Run, read_metrics

DIFFERENCE = "difference"  # of AP to that of the first loss; "AP rare difference" likewise


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


def difference_of(metric: str) -> str:
    """Return the name of the interval of the difference of a metric to that of the first loss."""
    return f"{metric} {DIFFERENCE}" if metric in (RARE, COMMON) else DIFFERENCE


def detections(run: Run) -> list[dict]:
    """Return the detections of a finished evaluation in COCO format."""
    return json.loads((run.output / "inference" / "coco_instances_results.json").read_text())


def intervals(
    runs: Iterable[Run],
    reference: str,
    json_file: str,
    limit: int,
    rare: Collection[str] = (),
    task: str = "bbox",
) -> dict[str, dict[str, tuple[float, float]]]:
    """Compute 95 % intervals of AP over images and seeds, and of differences to a loss.

    Args:
        runs: finished runs that have evaluated the same images.
        reference: loss that the others are compared with, if they have runs of the same seeds.
        json_file: annotations of the images.
        limit: number of detections that count per image and class.
        rare: classes that are averaged apart from the others.
        task: `bbox` or `segm`.

    Returns:
        Loss -> metric, or `difference_of` it -> interval in percent. Empty for too many images;
        without a loss of which a run has found nothing.
    """
    truth = read_ground_truth(json_file, masks=task == "segm")
    if len(truth.dataset["images"]) > MOST_IMAGES:
        return {}
    results = [(run, detections(run)) for run in runs]
    nothing = {run.loss for run, own in results if not own}
    found: dict[str, dict[int, Evaluation]] = {}
    for run, own in results:
        if run.loss not in nothing:
            evaluation = evaluate_detections(truth, own, task, limits=[1, 10, limit])
            found.setdefault(run.loss, {})[run.seed] = evaluation
    names = [name for _, name in sorted(read_categories(json_file).items())]
    groups: dict[str, Sequence[int]] = {"AP": range(len(names))}
    for group, is_rare in ((RARE, True), (COMMON, False)) if rare else ():
        groups[group] = [n for n, name in enumerate(names) if (name in rare) == is_rare]
    if not found:
        return {}
    drawn = bootstrap(found, groups)
    for loss, samples in drawn.items():
        if reference in drawn and found[loss].keys() == found[reference].keys():  # the same seeds
            for group in groups:
                samples[difference_of(group)] = samples[group] - drawn[reference][group]
    return {
        loss: {
            name if DIFFERENCE in name else PREFIXES[task] + name: interval(100 * ap)
            for name, ap in samples.items()
        }
        for loss, samples in drawn.items()
    }
