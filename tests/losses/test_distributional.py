"""DR Loss: the golden cases, extremes, and pools in the criterion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from brloss_d2.criteria import SigmoidCriterion
from brloss_d2.losses import DRLoss, GIoULoss, dr_loss
from tests.helpers.batches import random_batch

GOLDEN = Path(__file__).parents[1] / "golden" / "dr_loss.npz"
PARAMETERS = ("positive_softness", "negative_softness", "sharpness", "weight", "margin")


def binary(labels: Tensor, num_classes: int) -> Tensor:
    """(R, K) 1, 0 and -1 from (R,) labels: 0 background, 1.. classes, -1 ignored."""
    hot = torch.arange(1, num_classes + 1) == labels[:, None]
    return torch.where(labels[:, None] < 0, -1, hot.long())


@pytest.mark.parametrize(
    ("dtype", "of_value", "of_gradient"),
    [(torch.float64, 1e-12, 1e-12), (torch.float32, 2e-6, 1e-5)],
)
def test_golden(dtype, of_value, of_gradient):
    z = np.load(GOLDEN)
    assert len(z["case_name"]) == 17
    for i, name in enumerate(z["case_name"]):
        case = {k: torch.from_numpy(z[f"c{i:02d}_{k}"]) for k in ("logits", "labels", "grad")}
        logits = case["logits"].to(dtype).requires_grad_()
        parameters = dict(zip(PARAMETERS, z[f"c{i:02d}_params"].tolist(), strict=True))
        value = dr_loss(logits, binary(case["labels"], logits.shape[1]), **parameters)
        value.backward()
        assert value.item() == pytest.approx(float(z[f"c{i:02d}_loss"]), rel=of_value), name
        scale = case["grad"].abs().max().item() or 1.0
        difference = (logits.grad.double() - case["grad"]).abs().max().item()
        assert difference <= of_gradient * scale, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_are_finite(dtype):
    logits = torch.tensor([40.0, -40.0, 40.0, -40.0], dtype=dtype, requires_grad=True)
    value = dr_loss(logits, torch.tensor([1, 1, 0, 0]), negative_softness=1e-3)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_the_positive_that_is_low_and_the_negative_that_is_high_weigh_most():
    logits = torch.tensor([2.0, 1.0, -1.0, 1.0, -1.0, -2.0], requires_grad=True)
    dr_loss(logits, torch.tensor([1, 1, 1, 0, 0, 0])).backward()
    assert logits.grad.argmin() == 2
    assert logits.grad.argmax() == 3


def criterion(**options) -> SigmoidCriterion:
    return SigmoidCriterion(DRLoss(**options), GIoULoss())


def test_images_are_ranked_one_by_one_or_together():
    matched = replace(random_batch([0, 3, 1, 3, -1, 3, 2, 3, 3]), rows_per_image=[4, 3, 2])
    labels = matched.binary_labels()
    rows = [slice(0, 4), slice(4, 7), slice(7, 9)]  # no positive in the last one
    each = torch.stack([dr_loss(matched.logits[r], labels[r]) for r in rows])
    whole = dr_loss(matched.logits, labels)
    for size, expected in ((1, each.mean()), (None, whole), (3, whole)):
        found = criterion(images_per_pool=size)(matched).losses["loss_cls"]
        torch.testing.assert_close(found, expected)


def test_without_rows_there_is_nothing_to_learn():
    for labels in ([-1] * 4, []):
        matched = replace(random_batch(labels), rows_per_image=[len(labels), 0])
        loss = criterion()(matched).losses["loss_cls"]
        (gradient,) = torch.autograd.grad(loss, matched.logits)
        assert loss == 0
        assert not gradient.any()


def test_a_diverged_network_shows():
    logits = torch.tensor([[torch.nan, 0.0]])
    assert dr_loss(logits, torch.tensor([[1, 0]])).isnan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative_softness": 0}, "negative_softness must be a finite number > 0"),
        ({"margin": -1}, "margin must be a finite number >= 0"),
        ({"images_per_pool": 0}, "images_per_pool must be a finite number >= 1"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DRLoss(**options)
    if "images_per_pool" not in options:
        with pytest.raises(ValueError, match=message):
            dr_loss(torch.zeros(1), torch.ones(1), **options)


def test_labels_have_the_shape_of_the_logits():
    with pytest.raises(ValueError, match=r"the shape of labels \(2,\)"):
        dr_loss(torch.zeros(2, 1), torch.ones(2).long())
