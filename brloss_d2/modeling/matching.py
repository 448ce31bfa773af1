"""Ground truth for predictions: matching by IoU, and the input of a criterion."""

from collections.abc import Sequence

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from brloss_d2.criteria import CriterionOutput, MatchedMasks, MatchedPredictions
from brloss_d2.errors import InputError
from brloss_d2.utils.devices import upload

# Metrics are computed and read, which stalls a GPU, once in so many iterations.
_METRICS_PERIOD = 20


class MaxIoUMatcher(Matcher):
    """detectron2's `Matcher` with a floor for low-quality matches, which also change their object.

    For every ground-truth box with a best IoU of at least `min_low_quality_iou`, all anchors of
    that IoU become positives *of this box*; if several boxes claim an anchor, the last one gets it.
    detectron2's own takes every best anchor, however low its IoU, and leaves it with the box that
    overlaps it most.

    Args:
        thresholds: IoU bounds between the levels, ascending.
        labels: label of each level, 0 negative, 1 positive, -1 ignored; one more than thresholds.
        min_low_quality_iou: floor in (0, 1]; None switches low-quality matches off.
        single_best: whether a box claims only the first of several anchors of its best IoU.
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        labels: Sequence[int],
        *,
        min_low_quality_iou: float | None = None,
        single_best: bool = False,
    ):
        super().__init__(list(thresholds), list(labels), allow_low_quality_matches=False)
        self.min_low_quality_iou, self.single_best = min_low_quality_iou, single_best

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match N anchors.

        Args:
            match_quality_matrix: (G, N) IoU of ground-truth boxes and anchors.

        Returns:
            `(matches, labels)`: (N,) int64 index of the ground-truth box, and (N,) int8 label.
        """
        if match_quality_matrix.numel() == 0:
            return super().__call__(match_quality_matrix)
        # As detectron2 does it, but without a wait for the device.
        iou, matches = match_quality_matrix.max(0)
        labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds[1:-1], self.labels[1:], strict=True):
            labels.masked_fill_(iou >= threshold, label)
        if self.min_low_quality_iou is None:
            return matches, labels
        best = match_quality_matrix.amax(1, keepdim=True)
        claims = (match_quality_matrix == best) & (best >= self.min_low_quality_iou)
        if self.single_best:
            claims &= claims.cumsum(1) == 1
        boxes = torch.arange(len(claims), dtype=torch.int32, device=claims.device)
        last = boxes[:, None].where(claims, -1).amax(0)
        return torch.where(last >= 0, last, matches), labels.masked_fill_(last >= 0, 1)


def inside_padded_image(centers: Tensor, image_size: tuple[int, int], divisor: int) -> Tensor:
    """Tell the anchors in an image from those in the padding that its batch added.

    Args:
        centers: (R, 2) anchor centers, x and y in pixels.
        image_size: height and width of the image in pixels.
        divisor: number of pixels to whose multiples the image itself is padded.

    Returns:
        (R,) bool, True inside.
    """
    height, width = (-(-side // divisor) * divisor for side in image_size)
    x, y = centers.unbind(1)
    return (x < width) & (y < height)


def kept_rows(kept: Tensor, sizes: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Find what is kept of groups of rows; the host waits for a GPU once, for all groups together.

    Args:
        kept: (R,) bool.
        sizes: number of rows of each group, in order.

    Returns:
        (P,) int64 rows that are kept, ascending, and the number of them in each group.
    """
    device, ends = kept.device, torch.tensor([0, *sizes]).cumsum(0)
    so_far = torch.nn.functional.pad(kept.cumsum(0), (1, 0))
    counts = so_far[upload(ends, device)].diff().tolist()
    # The i-th row that is kept is the first one up to which i are.
    rows = torch.searchsorted(so_far, torch.arange(1, sum(counts) + 1, device=device)) - 1
    return rows, counts


def match_predictions(
    logits: Tensor,
    labels: Tensor,
    foreground: Tensor,
    deltas: Tensor,
    references: Tensor,
    gt_boxes: Tensor,
    *,
    transform: Box2BoxTransform,
    num_classes: int,
    rows_per_image: Sequence[int],
    encode_targets: bool = True,
    clamp_targets: bool = False,
    quality_logits: Tensor | None = None,
    levels: Tensor | None = None,
) -> MatchedPredictions:
    """Decode the foreground rows and pair them with their ground truth.

    Args:
        logits: (R, num_classes) class logits, possibly with a background column.
        labels: (R,) 0..num_classes-1 foreground, num_classes background, -1 ignored.
        foreground: (P,) foreground rows, ascending.
        deltas: (P, 4) predictions of the foreground rows.
        references: (P, 4) anchors or proposals that they refer to, XYXY in pixels.
        gt_boxes: (P, 4) ground-truth boxes, XYXY in pixels.
        transform: encoding of `deltas`.
        num_classes: number of foreground classes.
        rows_per_image: number of rows of each image, in order.
        encode_targets: whether the ground truth is encoded, for a criterion that `needs_deltas`.
        clamp_targets: whether a ground-truth box is replaced by the nearest one that the encoding
            can express.
        quality_logits: (P,) logits of a quality branch.
        levels: (P,) int64 pyramid level of each foreground row.
    """
    deltas = deltas.float()
    with torch.no_grad():
        gt_deltas = None
        if encode_targets or clamp_targets:
            known = len(deltas) > 0
            gt_deltas = transform.get_deltas(references, gt_boxes) if known else deltas.detach()
        if clamp_targets:
            gt_boxes = transform.apply_deltas(gt_deltas, references)
    return MatchedPredictions(
        logits=logits,
        labels=labels,
        pred_boxes=transform.apply_deltas(deltas, references),
        gt_boxes=gt_boxes,
        num_classes=num_classes,
        foreground=foreground,
        rows_per_image=rows_per_image,
        pred_deltas=deltas,
        gt_deltas=gt_deltas,
        references=references,
        quality_logits=quality_logits,
        levels=levels,
    )


def match_masks(logits: Tensor, regions: list[Instances]) -> MatchedMasks:
    """Pair the masks of foreground regions with their ground truth.

    Args:
        logits: (P, K, S, S) mask logits, or (P, 1, S, S) of a class-agnostic head.
        regions: foreground regions per image, with `proposal_boxes`, `gt_classes`, `box_weights`,
            `cls_total` and, unless there are none, `gt_masks`.

    Raises:
        InputError: If there are objects without masks.
    """
    rows = torch.arange(len(logits), device=logits.device)
    classes = torch.cat([x.gt_classes for x in regions])
    own_class = logits[rows, classes if logits.shape[1] > 1 else torch.zeros_like(classes)]
    targets = []
    for x in regions:
        if len(x) and not x.has("gt_masks"):
            raise InputError(
                "The mask head trains on masks, but the annotations of an image have none. Use a "
                "dataset with `segmentation`s and a mapper with `use_instance_mask=True`, or a "
                "model without a mask head."
            )
        if len(x):
            boxes = x.proposal_boxes.tensor
            targets.append(x.gt_masks.crop_and_resize(boxes, logits.shape[-1]))
    return MatchedMasks(
        logits=own_class,
        targets=torch.cat(targets) if targets else own_class.detach(),
        weights=torch.cat([x.box_weights for x in regions]),
        cls_total=torch.cat([x.cls_total for x in regions]),
        masks_per_image=[len(x) for x in regions],
    )


def log_metrics(head: str, output: CriterionOutput) -> None:
    """Put the metrics of a criterion into detectron2's event storage, if there is one.

    Only in the iterations that are logged by default, next to the losses: metrics take operations,
    and each of them makes the host wait for a GPU.

    Args:
        head: name of the head, prefix of the metrics.
        output: output of the criterion.
    """
    if not has_event_storage():
        return
    iteration = get_event_storage().iter
    if iteration == 0 or (iteration + 1) % _METRICS_PERIOD == 0:
        for name, value in output.metrics().items():
            get_event_storage().put_scalar(f"{head}/{name}", float(value))
