"""Random matched predictions."""

from collections.abc import Sequence

import torch

from brloss_d2.criteria import MatchedPredictions

CLASSES = 3


def random_batch(
    labels: Sequence[int], *, columns: int = CLASSES, seed: int = 0
) -> MatchedPredictions:
    """Draw one row per label.

    Args:
        labels: labels of the rows: below CLASSES foreground, CLASSES background, -1 ignored.
        columns: number of logits per row.
        seed: seed of the random numbers.

    Returns:
        Matched predictions whose boxes are a few pixels off, with all that dense heads know.
    """
    g = torch.Generator().manual_seed(seed)
    rows = torch.tensor(labels, dtype=torch.long)
    count = int(((rows >= 0) & (rows < CLASSES)).sum())
    xy = torch.rand(count, 2, generator=g) * 50
    gt = torch.cat([xy, xy + 10 + torch.rand(count, 2, generator=g) * 30], 1)
    deltas = torch.randn(count, 4, generator=g).requires_grad_()
    return MatchedPredictions(
        logits=torch.randn(len(rows), columns, generator=g).requires_grad_(),
        labels=rows,
        pred_boxes=gt + deltas,
        gt_boxes=gt,
        num_classes=CLASSES,
        pred_deltas=deltas,
        gt_deltas=torch.zeros(count, 4),
        references=gt + 2,
        quality_logits=torch.randn(count, generator=g).requires_grad_(),
        levels=torch.arange(count) % 2,
    )
