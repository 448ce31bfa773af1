"""No checkpoint with NaN or infinite weights is written or resumed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from brloss_d2.checkpoint import Checkpointer, find_non_finite, fingerprint
from brloss_d2.errors import InputError
from tests.engine.test_options import load, refusal

TrainNet = Callable[..., Path]
# A step of float32 to infinity.
FATAL = ("optimizer.lr=1000", "+optimizer.weight_decay=3e38")


def test_the_last_step_may_diverge(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture
) -> None:
    """The loss of a step is computed before it, so that no loss shows what the last one did."""
    out = config.parent / "out"
    message = refusal(capsys, train_net, *FATAL, "train.max_iter=1")
    assert f"first linear.weight. {out / 'model_final.pth'} is not saved" in message
    assert not {"model_final.pth", "last_checkpoint"} & set(os.listdir(out))


def test_the_checkpoint_before_stays_the_last(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ("train.checkpointer.period=1", "lr_multiplier.end_value=1.0")
    out = train_net(*options, "train.max_iter=2")
    more = (*FATAL, "train.mix_schedules=True")
    assert "diverged" in refusal(capsys, train_net, *options, *more, resume=True)
    assert (out / "last_checkpoint").read_text() == "model_final.pth"
    assert load(out / "model_final.pth")["iteration"] == 1
    assert not (out / "model_0000002.pth").exists()


@pytest.mark.parametrize("averages", [False, True])
def test_such_a_checkpoint_is_not_resumed(
    train_net: TrainNet, capsys: pytest.CaptureFixture, averages: bool
) -> None:
    ema = "train.ema.enabled=True"
    out = train_net(ema)
    state = load(out / "model_final.pth")
    weights = state["trainer"]["hooks"]["EMA"]["weights"] if averages else state["model"]
    weights["linear.bias"][1] = float("nan")
    torch.save(state, out / "model_final.pth")
    message = refusal(capsys, train_net, ema, "train.mix_schedules=True", resume=True)
    assert "linear.bias" in message and "NaN or infinite" in message


def test_tensors_that_are_never_finite_are_saved(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(2)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    Checkpointer(model, str(tmp_path)).save("a")
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.load(str(tmp_path / "a.pth"))
    model.running_var[0] = torch.inf
    with pytest.raises(InputError, match=r"1 tensors of the model .* first running_var"):
        checkpointer.save("b")
    assert not (tmp_path / "b.pth").exists()


def test_names_of_what_is_not_finite() -> None:
    nan, fine = torch.tensor([torch.nan]), torch.ones(2)
    state = {"model": {"a": fine, "n": torch.tensor(3)}, "trainer": [{"b": nan}, 3, "x", None]}
    assert find_non_finite(state) == ["b"]
    assert find_non_finite({**state, "optimizer": {"c": nan}}, except_for=["b"]) == []


def test_fingerprints() -> None:
    weights = {"a": torch.arange(4.0).reshape(2, 2), "b": torch.tensor(1.0, dtype=torch.bfloat16)}
    same = {"b": weights["b"].clone(), "a": weights["a"].t().contiguous().t(), "n": 3}
    assert fingerprint(same) == fingerprint(weights)
    assert fingerprint({**weights, "a": weights["a"] + 1e-6}) != fingerprint(weights)
