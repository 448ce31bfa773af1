"""Losses of the layers of a decoder, computed together: those of every layer alone."""

from dataclasses import replace

import pytest
import torch

from brloss_d2.criteria import (
    Criterion,
    MatchedPredictions,
    PredictedIoU,
    RankingCriterion,
    RelativeIoU,
    SigmoidCriterion,
)
from brloss_d2.losses import (
    BucketedRankSortLoss,
    CorrelationLoss,
    DRLoss,
    EpochSelfBalancer,
    GIoULoss,
    QualityFocalLoss,
    RankSortLoss,
    SelfBalancer,
    SigmoidFocalLoss,
    SmoothL1Loss,
)

LAYERS, IMAGES, ROWS, CLASSES, OBJECTS = 3, 3, 7, 4, 2
BOXES = {"loss_l1": SmoothL1Loss(), "loss_giou": GIoULoss()}
WEIGHTS = {"loss_l1": 5.0, "loss_giou": 2.0}


def layers() -> MatchedPredictions:
    """Two objects per image and layer; some predicted boxes do not touch theirs."""
    g = torch.Generator().manual_seed(0)
    images = LAYERS * IMAGES
    rows = torch.stack([torch.randperm(ROWS, generator=g)[:OBJECTS] for _ in range(images)])
    foreground = (rows.sort().values + torch.arange(images)[:, None] * ROWS).flatten()
    labels = torch.full((images * ROWS,), CLASSES)
    labels[foreground] = torch.randint(CLASSES, (len(foreground),), generator=g)
    labels[0] = labels[0] if 0 in foreground else -1
    corner, moves = (torch.rand(len(foreground), 2, generator=g) for _ in range(2))
    gt_boxes = torch.cat([corner, corner + 0.6], 1)
    pred_boxes = (gt_boxes + moves.repeat(1, 2)).requires_grad_()
    return MatchedPredictions(
        logits=torch.randn(images * ROWS, CLASSES, generator=g).requires_grad_(),
        labels=labels,
        pred_boxes=pred_boxes,
        gt_boxes=gt_boxes,
        num_classes=CLASSES,
        foreground=foreground,
        rows_per_image=[ROWS] * images,
        pred_deltas=pred_boxes,
        gt_deltas=gt_boxes,
        num_layers=LAYERS,
    )


def ranking(loss=BucketedRankSortLoss, balancer=SelfBalancer, boxes=BOXES, **options) -> Criterion:
    return RankingCriterion(loss(), boxes, balancer(), **options)


def scores(loss, **options) -> Criterion:
    return SigmoidCriterion(loss, BOXES, box_weight=WEIGHTS, **options)


CRITERIA = {
    "brs": lambda: ranking(score_weighted=False, disjoint_is_negative=True),
    "rs": lambda: ranking(RankSortLoss),
    "pools": lambda: ranking(images_per_pool=2),
    "corr": lambda: ranking(correlation=CorrelationLoss(kind="concordance", weight=1.0)),
    "epochs": lambda: ranking(
        balancer=lambda: EpochSelfBalancer(pools_per_epoch=2), boxes=GIoULoss()
    ),
    "global": lambda: ranking(pool="global"),
    "focal": lambda: scores(SigmoidFocalLoss(), sync_normalizer=True),
    "qfl": lambda: scores(QualityFocalLoss(), normalizer="positives_per_image"),
    "targets": lambda: scores(
        QualityFocalLoss(),
        target=RelativeIoU(),
        normalizer="targets",
        box_normalizer="positives_and_images",
        box_weighting=PredictedIoU(),
    ),
    "rows": lambda: scores(SigmoidFocalLoss(), normalizer="rows"),
    "dr": lambda: scores(DRLoss(images_per_pool=2)),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_layers_together_have_the_losses_of_each_alone(name: str) -> None:
    together, alone = layers(), layers()
    output = CRITERIA[name]().layers(together)
    criterion = CRITERIA[name]()
    outputs = [criterion(layer) for layer in alone.layers()]
    for loss, value in output.losses.items():
        assert value.shape == (LAYERS,)
        torch.testing.assert_close(value, torch.stack([o.losses[loss] for o in outputs]))
    for x in ("logits", "pred_boxes"):
        grad, expected = (
            torch.autograd.grad(total, getattr(matched, x), retain_graph=True)[0]
            for total, matched in (
                (sum(value.sum() for value in output.losses.values()), together),
                (sum(value for o in outputs for value in o.losses.values()), alone),
            )
        )
        torch.testing.assert_close(grad, expected)
    metrics, expected = output.metrics(), outputs[-1].metrics()
    assert metrics.keys() == expected.keys()
    for key, value in metrics.items():
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected[key]))


def test_layers_are_ranked_at_once_on_a_device() -> None:
    pretend = pytest.importorskip("support.pretend_device", exc_type=ImportError)
    expected = CRITERIA["rs"]().layers(layers()).losses
    with pretend.pretend_device() as device:
        tensors = {k: x for k, x in vars(layers()).items() if isinstance(x, torch.Tensor)}
        there = {name: x.detach().to(pretend.DEVICE) for name, x in tensors.items()}
        matched = replace(layers(), **there)
        launches = []
        for part in (matched.layers()[0], matched):
            device.reset()
            criterion = CRITERIA["rs"]()
            output = criterion(part) if part.num_layers is None else criterion.layers(part)
            launches.append(device.launches.total())
        assert launches[1] < 1.2 * launches[0] and not device.syncs
        for name, value in expected.items():
            torch.testing.assert_close(output.losses[name].to("cpu"), value.detach())


def test_parts() -> None:
    parts = layers().layers()
    assert len(parts) == LAYERS and {x.num_layers for x in parts} == {None}
    whole = replace(layers(), num_layers=None)
    for part, expected in zip(parts, whole.split(IMAGES), strict=True):
        assert torch.equal(part.foreground, expected.foreground)
        assert torch.equal(part.gt_boxes, expected.gt_boxes)
        assert part.rows_per_image == expected.rows_per_image
