"""oLRP from its definition: for each score threshold a new matching, and then the sums.

Oksuz et al., "One Metric to Measure Them All: Localization Recall Precision (LRP) for Evaluating
Visual Detection Tasks", TPAMI 2021, with COCO's matching. Nothing here is from the package, nor is
it fast.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
NOTHING = float("nan")


def optimal_lrp(
    truth: Mapping[str, Any], found: Sequence[Record], *, tau: float = 0.5, limit: int = 100
) -> dict[int, tuple[float, ...]]:
    """Return class id -> oLRP, 1 - IoU of the true positives, 1 - precision, 1 - recall, score.

    Args:
        truth: dataset in COCO format.
        found: detections (boxes) in COCO format.
        tau: IoU from which a detection matches.
        limit: detections per image and class that count, those of the highest scores.
    """
    rows = {}
    for category in truth["categories"]:
        own = [a for a in truth["annotations"] if a["category_id"] == category["id"]]
        objects = sum(not a["iscrowd"] for a in own)
        images = []
        for image in truth["images"]:
            annotations = [a for a in own if a["image_id"] == image["id"]]
            there = [r for r in found if r["image_id"] == image["id"]]
            there = [r for r in there if r["category_id"] == category["id"]]
            there = sorted(there, key=lambda r: -r["score"])[:limit]
            overlaps = [[_overlap(r["bbox"], a) for a in annotations] for r in there]
            scores = [r["score"] for r in there]
            is_crowd = [a["iscrowd"] for a in annotations]
            images.append((is_crowd, [*zip(scores, overlaps, strict=True)]))
        best = (1.0, NOTHING, NOTHING, 1.0, NOTHING) if objects else (NOTHING,) * 5
        for threshold in sorted({s for _, there in images for s, _ in there}, reverse=True):
            row = _lrp(images, objects, threshold, tau) if objects else None
            if row and (best[4] != best[4] or row[0] < best[0]):
                best = row
        rows[category["id"]] = best
    return rows


def _lrp(
    images: Sequence[tuple[Sequence[int], Sequence[tuple[float, Sequence[float]]]]],
    objects: int,
    threshold: float,
    tau: float,
) -> tuple[float, ...] | None:
    """Return the row of one threshold; None without a true positive, where one part is undefined.

    LRP = (sum over the true positives of (1 - IoU) / (1 - tau) + N_FP + N_FN) / (N_TP + N_FP +
    N_FN), equation 3.
    """
    ious: list[float] = []
    false_positives = 0
    for is_crowd, there in images:
        free = [place for place, crowd in enumerate(is_crowd) if not crowd]
        for score, overlaps in there:
            if score < threshold:
                continue
            # Among equal overlaps COCO takes the last object. Crowds can be matched many times,
            # and only by what matches no object.
            best = max(free, key=lambda place: (overlaps[place], place), default=None)
            if best is not None and overlaps[best] >= tau:
                ious.append(overlaps[best])
                free.remove(best)
            elif not any(o >= tau for o, crowd in zip(overlaps, is_crowd, strict=True) if crowd):
                false_positives += 1
    if not ious:
        return None
    matched = len(ious)
    error = sum(1 - iou for iou in ious)
    missed = objects - matched
    total = (error / (1 - tau) + false_positives + missed) / (matched + false_positives + missed)
    precision, recall = matched / (matched + false_positives), matched / objects
    return total, error / matched, 1 - precision, 1 - recall, threshold


def _overlap(box: Sequence[float], annotation: Record) -> float:
    """Return the IoU with an object, or the part of a box (XYWH) within a crowd."""
    x, y, w, h = box
    u, v, s, t = annotation["bbox"]
    width, height = min(x + w, u + s) - max(x, u), min(y + h, v + t) - max(y, v)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (w * h if annotation["iscrowd"] else w * h + s * t - shared)
