"""SIGTERM and SIGINT stop training gracefully; --resume continues."""

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from brloss_d2.engine import run
from brloss_d2.engine.hooks import signals
from brloss_d2.engine.hooks.signals import StopSignals
from tests.helpers.programs import TORCHRUN, start
from tests.helpers.programs import train_net as run_program

TrainNet = Callable[..., Path]


def test_a_signal_saves_and_resume_continues(
    train_net: TrainNet, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ("model.dropout=0.5", "train.max_iter=5", "train.checkpointer.period=9")
    with pytest.raises(SystemExit) as end:
        train_net(*options, "model.stop_from=1")
    assert end.value.code == 128 + signal.SIGTERM
    out = tmp_path / "out"
    assert (out / "last_checkpoint").read_text() == "model_0000001.pth"
    assert "Received SIGTERM: stopped after 2 of 5 iterations" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "as it was before"
    train_net(*options, resume=True)
    whole = train_net(*options, f"train.output_dir={tmp_path / 'whole'}").parent / "whole"
    a, b = (torch.load(f / "model_final.pth", weights_only=True)["model"] for f in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_forked_processes_take_sigterm_as_by_default() -> None:
    """A stuck process never reaches a handler in Python, and its pool would wait forever."""
    hook = StopSignals()
    hook.trainer = SimpleNamespace(data_loader=None)
    own = signal.signal(signal.SIGTERM, print)
    try:
        hook.before_train()
        assert handler_of_a_fork() == signal.SIG_DFL
        hook.after_train()
        assert handler_of_a_fork() == print, "as it was before"
    finally:
        signal.signal(signal.SIGTERM, own)


def test_a_signal_after_the_last_iteration_is_told(caplog: pytest.LogCaptureFixture) -> None:
    hook = StopSignals()
    hook.trainer = SimpleNamespace(data_loader=None, iter=4, max_iter=4)
    hook.before_train()
    os.kill(os.getpid(), signal.SIGTERM)
    with caplog.at_level("INFO", logger="brloss_d2"):
        hook.after_train()
    assert "Received SIGTERM after the last iteration" in caplog.text


def test_a_second_signal_is_told(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_SAME_SECONDS", -1.0)
    pid = os.fork()
    if pid == 0:
        hook = StopSignals()
        hook.trainer = SimpleNamespace(data_loader=None)
        hook.before_train()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert "error: Stopped at once by another signal, SIGTERM." in capfd.readouterr().err


def test_a_signal_before_training_is_told(capsys: pytest.CaptureFixture) -> None:
    args = argparse.Namespace(num_gpus=1, num_machines=1, machine_rank=0, dist_url="auto")
    forked = []

    def main(args: argparse.Namespace) -> None:
        forked.append(handler_of_a_fork())
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        run(main, args)
    assert end.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "error: Stopped by SIGTERM.\n"
    assert forked == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "as it was before"


def handler_of_a_fork() -> object:
    candidates = (print, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        handler = signal.getsignal(signal.SIGTERM)
        os._exit(candidates.index(handler) if handler in candidates else 9)
    return candidates[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


@pytest.mark.parametrize(("launcher", "options"), [((), ("--num-gpus", "2")), (TORCHRUN, ())])
def test_one_process_of_two_gets_a_signal(
    config: Path, launcher: Sequence[str], options: Sequence[str]
) -> None:
    result = run_program(
        *(*options, "model.nan_rank=1", "model.stop_from=2", "train.checkpointer.period=9"),
        config=config,
        launcher=launcher,
    )
    assert result.returncode == (1 if launcher else 143), result.stderr  # 1 is torchrun's
    checkpoint = torch.load(config.parent / "out" / "model_0000002.pth", weights_only=True)
    assert checkpoint["iteration"] == 2
    assert len(checkpoint["trainer"]["hooks"]["RunState"]["processes"]) == 2


@pytest.mark.parametrize(
    ("options", "number", "everyone"),
    [
        (("--num-gpus", "2"), signal.SIGTERM, False),
        (("--num-gpus", "2"), signal.SIGINT, True),  # as Ctrl-C does it
        ((), signal.SIGTERM, True),
        ((), signal.SIGUSR1, True),  # as clusters do it some time before the end
    ],
)
def test_the_program_gets_a_signal(
    config: Path, options: Sequence[str], number: int, everyone: bool
) -> None:
    """Send it to the program only, or also to its processes and their data loader workers."""
    options = (*options, "train.max_iter=10000000", "train.checkpointer.period=10000000")
    process = start(*options, "dataloader.train.num_workers=2", config=config)
    metrics = config.parent / "out" / "metrics.json"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.1)
    send(process, number, everyone)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in out + err
    last = (config.parent / "out" / "last_checkpoint").read_text()
    assert torch.load(config.parent / "out" / last, weights_only=True)["iteration"] > 0


def send(process: subprocess.Popen[str], number: int, everyone: bool) -> None:
    if everyone:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
