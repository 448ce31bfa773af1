"""Warm-up of one-stage detectors: what trains, and when it changes."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from brloss_d2.criteria import SigmoidCriterion
from brloss_d2.losses import GIoULoss, SigmoidFocalLoss
from brloss_d2.model_zoo import get_criterion
from brloss_d2.modeling import (
    ATSSAssigner,
    OneStageDetector,
    TaskAlignedAssigner,
    WarmupAssigner,
    WarmupCriterion,
)
from tests.helpers.random_inputs import random_inputs
from tests.helpers.small_one_stage import CLASSES, small_config


def detector(assigner, criterion) -> OneStageDetector:
    cfg = small_config("atss_R_50_FPN_brs_1x", tower=32)
    cfg.assigner, cfg.criterion = assigner, criterion
    torch.manual_seed(0)
    return instantiate(cfg).train()


def test_assignment_and_losses_change_together_and_stay_so_after_a_restart():
    focal, tal = (get_criterion(name, "atss") for name in ("focal", "tal"))
    focal.quality = None
    parts = [(L(ATSSAssigner)(topk=9), focal), (L(TaskAlignedAssigner)(topk=13), tal)]
    assigners, criteria = zip(*parts, strict=True)
    both = detector(
        L(WarmupAssigner)(warmup=assigners[0], main=assigners[1], iterations=2),
        L(WarmupCriterion)(warmup=criteria[0], main=criteria[1], iterations=2),
    )
    alone = [detector(*part) for part in parts]
    batch = random_inputs(3, 2, num_classes=CLASSES)
    for start in (0, 1, 2, 7):
        with EventStorage(start):
            found, expected = both(batch), alone[start >= 2](batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(both(batch), expected, rtol=0, atol=0)  # no training, no warm-up
    assert both.state_dict().keys() == alone[1].state_dict().keys()


def test_wrong_arguments():
    rule, criterion = ATSSAssigner(), SigmoidCriterion(SigmoidFocalLoss(), GIoULoss())
    with pytest.raises(ValueError, match="main must be of type Assigner"):
        WarmupAssigner(rule, criterion, iterations=1)
    with pytest.raises(ValueError, match="iterations must be a finite number >= 0, got -1"):
        WarmupCriterion(criterion, criterion, iterations=-1)
    with pytest.raises(ValueError, match="a part of the training only"):
        WarmupCriterion(instantiate(get_criterion("focal", "atss")), criterion, iterations=1)
