"""Schedules of the learning rate."""

import pytest

from brloss_d2.engine import StepCosineParamScheduler

# Of RS-YOLACT: epoch and learning rate as published, from 0.006.
PUBLISHED = {0: 0.006, 1: 0.00599511, 10: 0.00552376, 27: 0.00308567, 40: 0.00103542, 54: 4.89e-6}
EPOCHS, EPOCH = 55, 3665


def test_cosine_decay_in_steps():
    factor = StepCosineParamScheduler(num_steps=EPOCHS)
    for epoch, lr in PUBLISHED.items():
        first, last = epoch * EPOCH, (epoch + 1) * EPOCH - 1
        for iteration in (first, (first + last) // 2, last):
            assert 0.006 * factor(iteration / (EPOCHS * EPOCH)) == pytest.approx(
                lr, rel=0, abs=5e-9
            )
    rates = {factor(i / (EPOCHS * EPOCH)) for i in range(EPOCHS * EPOCH)}
    assert len(rates) == EPOCHS
    assert factor(1.0) == 0  # asked for after the last iteration
