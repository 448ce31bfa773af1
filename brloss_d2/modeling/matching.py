"""From the foreground rows of a head to what its criterion compares."""

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from brloss_d2.criteria import CriterionOutput, MatchedPredictions

# Reading a metric off the device stalls it, so they are looked at once in so many iterations.
_METRICS_PERIOD = 20


def match_predictions(
    logits: Tensor,
    labels: Tensor,
    deltas: Tensor,
    references: Tensor,
    gt_boxes: Tensor,
    *,
    transform: Box2BoxTransform,
    num_classes: int,
    rows_per_image: list[int],
) -> MatchedPredictions:
    """Decode the foreground rows and put them beside their ground truth.

    Args:
        logits: (R, num_classes), or with a background column.
        labels: (R,) 0..num_classes-1 foreground, num_classes background, -1 ignored.
        deltas: (P, 4) predictions of the foreground rows.
        references: (P, 4) anchors or proposals they refer to, XYXY in pixels.
        gt_boxes: (P, 4) XYXY in pixels.
        transform: what `deltas` are encoded by.
        num_classes: foreground classes.
        rows_per_image: how the R rows divide into images.
    """
    deltas = deltas.float()
    counts = torch.tensor(rows_per_image, device=labels.device)
    images = torch.arange(len(counts), device=labels.device).repeat_interleave(
        counts, output_size=len(labels)
    )
    with torch.no_grad():
        gt_deltas = transform.get_deltas(references, gt_boxes) if len(deltas) else deltas.detach()
    return MatchedPredictions(
        logits=logits,
        labels=labels,
        pred_boxes=transform.apply_deltas(deltas, references),
        gt_boxes=gt_boxes,
        num_classes=num_classes,
        pred_deltas=deltas,
        gt_deltas=gt_deltas,
        images=images,
        num_images=len(rows_per_image),
    )


def log_metrics(head: str, output: CriterionOutput) -> None:
    """Hand the metrics of a criterion to the event storage, if training with one."""
    if has_event_storage() and get_event_storage().iter % _METRICS_PERIOD == 0:
        for name, value in output.metrics.items():
            get_event_storage().put_scalar(f"{head}/{name}", float(value))
