"""The line of losses in the log."""

import json
import logging
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage

from brloss_d2.engine.hooks.writers import MetricPrinter, MetricsFile

LOSSES = {
    "loss_rank_layer0": "class",
    "loss_l1_layer0": "box",
    "loss_rank_layer1": "class",
    "loss_rpn_rank": "auxiliary",
}


def storage() -> EventStorage:
    """Three iterations; the losses of iteration i are i, i + 1, ..."""
    filled = EventStorage()
    for iteration in range(3):
        filled.iter = iteration
        for more, name in enumerate(LOSSES):
            filled.put_scalar(name, iteration + more)
        filled.put_scalar("total_loss", 4 * iteration + 6)
        filled.put_scalar("time", 0.5)
    return filled


def test_losses_are_added_up_by_kind(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The line has the medians of the sums; metrics.json has every loss and no sum."""
    file = MetricsFile(str(tmp_path / "metrics.json"), resume=False, state={})
    with caplog.at_level(logging.INFO), storage():
        MetricPrinter(10, LOSSES.__getitem__).write()
        file.write()
    file.close()
    (line,) = [r.getMessage() for r in caplog.records if "total_loss" in r.getMessage()]
    assert "total_loss: 10  class_loss: 4  box_loss: 2  auxiliary_loss: 4  " in line
    assert "eta: 0:00:03" in line
    assert "loss_rank" not in line
    numbers = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert {name for name in numbers if "loss" in name} == {*LOSSES, "total_loss"}
    assert numbers["eta_seconds"] == 3.5


def test_a_model_of_few_losses_shows_each(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), storage():
        MetricPrinter(10).write()
    text = caplog.text
    assert all(f"{name}: {1 + more}  " in text for more, name in enumerate(LOSSES))
