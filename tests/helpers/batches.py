"""Random matched predictions."""

import torch

from brloss_d2.criteria import MatchedPredictions

CLASSES = 3


def random_batch(labels, *, columns: int = CLASSES, seed: int = 0) -> MatchedPredictions:
    """One row for each label; boxes are a few pixels off."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor(labels, dtype=torch.long)
    count = int(((labels >= 0) & (labels < CLASSES)).sum())
    xy = torch.rand(count, 2, generator=g) * 50
    gt = torch.cat([xy, xy + 10 + torch.rand(count, 2, generator=g) * 30], 1)
    deltas = torch.randn(count, 4, generator=g).requires_grad_()
    return MatchedPredictions(
        logits=torch.randn(len(labels), columns, generator=g).requires_grad_(),
        labels=labels,
        pred_boxes=gt + deltas,
        gt_boxes=gt,
        num_classes=CLASSES,
        pred_deltas=deltas,
        gt_deltas=torch.zeros(count, 4),
    )
