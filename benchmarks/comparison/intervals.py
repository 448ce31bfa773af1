"""Bootstrap intervals of AP over images and seeds."""

from collections.abc import Mapping, Sequence

import numpy as np

from brloss_d2.evaluation import Evaluation, match_detections

SAMPLES = 1000
MOST_IMAGES = 2000  # of which tables of images by true positives fit into memory
_RECALLS = np.linspace(0, 1, 101)
_PERCENTILES = (2.5, 97.5)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 percent of bootstrap samples, (B,), without those that are undefined."""
    low, high = np.nanpercentile(values, _PERCENTILES)
    return float(low), float(high)


def bootstrap(
    evaluations: Mapping[str, Mapping[int, Evaluation]],
    groups: Mapping[str, Sequence[int]],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Draw images and seeds with replacement, and compute mean AP of each sample.

    A sample has the same images for all losses and seeds, and the same seeds for all losses that
    have as many, so that the difference of two losses can be taken sample by sample.

    Args:
        evaluations: evaluations of the same images by loss and seed.
        groups: indices of classes whose AP is averaged, by name of the group.
        samples: number B of samples.
        seed: seed of the draws.

    Returns:
        Loss -> group -> mean AP over the drawn seeds, (B,), 0..1; NaN for a sample without objects.
    """
    rng = np.random.default_rng(seed)
    first = next(e for by_seed in evaluations.values() for e in by_seed.values())
    count = len(first.image_ids)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=samples).astype(float)
    most = max(map(len, evaluations.values()))
    draws = rng.random((samples, most))
    found: dict[str, dict[str, np.ndarray]] = {}
    for loss, by_seed in evaluations.items():
        aps = np.stack([resampled_ap(evaluation, weights) for evaluation in by_seed.values()])
        drawn = (draws[:, : len(aps)] * len(aps)).astype(int)
        with np.errstate(invalid="ignore"):
            found[loss] = {}
            for name, classes in groups.items():
                means = _mean(aps[:, :, list(classes)])
                found[loss][name] = means[drawn, np.arange(samples)[:, None]].mean(axis=1)
    return found


def resampled_ap(evaluation: Evaluation, weights: np.ndarray) -> np.ndarray:
    """Compute COCO's AP of each class for samples of the images, from one matching.

    It is that of an evaluation of the sample, in which an image that was drawn twice is two images,
    unless an image has several detections of a class with exactly the same score.

    Args:
        evaluation: result of `evaluate_detections` with I images and K classes.
        weights: how often each image, in the order of the ids, is in each of B samples, (B, I).

    Returns:
        AP, (B, K), 0..1; NaN for a class without objects in the sample.
    """
    images = {id_: number for number, id_ in enumerate(evaluation.image_ids)}
    labels = {id_: number for number, id_ in enumerate(evaluation.class_ids)}
    wanted = set(evaluation.pairs(0.5, "all")[1])
    objects = np.zeros((len(images), len(labels)))
    for record in evaluation.truth["annotations"]:
        if record["id"] in wanted:
            objects[images[record["image_id"]], labels[record["category_id"]]] += 1
    total = weights @ objects
    found = np.zeros_like(total)
    thresholds = np.asarray(evaluation.computed.params.iouThrs)
    for threshold in thresholds:
        matches = match_detections(evaluation, iou_threshold=float(threshold))
        matches = matches.subset(np.argsort(-matches.scores, kind="stable"))
        for label in range(len(labels)):
            own = matches.of_class(label)
            found[:, label] += _ap(own.images, own.correct, weights, total[:, label])
    return np.where(total > 0, found / len(thresholds), np.nan)


def _ap(
    images: np.ndarray, correct: np.ndarray, weights: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return AP of one class at one IoU threshold, (B,), of D detections in score order.

    Only true positives are looked at: between two of them precision falls at the same recall.

    Args:
        images: index of the image, (D,).
        correct: whether the detection is a true positive, (D,).
        weights: how often each image is in each sample, (B, I).
        total: number of objects in each sample, (B,).
    """
    places, count = correct.cumsum() - correct, int(correct.sum())
    passed = np.zeros((weights.shape[1], count + 1))
    np.add.at(passed, (images, places), 1)  # detections by image, down to each true positive
    hits = np.zeros((weights.shape[1], count))
    hits[images[correct], places[correct]] = 1
    true = weights @ hits.cumsum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(true / (weights @ passed[:, :count].cumsum(axis=1)))
        recall = true / total[:, None]
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(_RECALLS, recall, side="right")
    return (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; NaN if nothing is."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)
