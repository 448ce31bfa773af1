"""Faults of the machine while a run goes on: one sentence, no traceback, no process left behind."""

import argparse
import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils import comm

from brloss_d2.engine.hooks.writers import MetricsFile
from brloss_d2.engine.launch import run
from brloss_d2.engine.prepare import prepare
from brloss_d2.errors import InputError
from tests.helpers.programs import start
from tests.helpers.toy import ToyMapper

TrainNet = Callable[..., Path]


class FatalMapper(ToyMapper):
    """Mapper that is killed, as by a system without memory."""

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return record


def error_of(capsys: pytest.CaptureFixture, call: Callable[[], object]) -> str:
    """Return the one line on stderr with which a call ends the program."""
    with pytest.raises(SystemExit) as end:
        call()
    assert end.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_a_worker_of_the_data_loader_is_killed(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    mapper = f"dataloader.train.mapper._target_={__name__}.FatalMapper"
    call = lambda: train_net(mapper, "dataloader.train.num_workers=1")  # noqa: E731
    error = error_of(capsys, call)
    assert "worker of a data loader" in error and "--resume" in error


def test_the_disk_is_full(
    train_net: TrainNet,
    config: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(writer: MetricsFile) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MetricsFile, "write", fail)
    assert "The disk is full" in error_of(capsys, train_net)
    log = (config.parent / "out" / "log.txt").read_text()
    assert "Traceback" in log, "for whoever has to find the cause"


def test_a_batch_that_the_processes_do_not_divide(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = argparse.Namespace(config_file=str(config), opts=[], resume=False, eval_only=False)
    prepare(args)
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(InputError, match=r"total_batch_size=2: expected a multiple of 3"):
        prepare(args)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_gpus": 0}, "at least 1"),
        ({"num_machines": 2}, "needs --dist-url tcp://"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank 2: expected 0 to 1"),
        ({"dist_url": "localhost:4000"}, "--dist-url localhost:4000: expected auto or tcp://"),
    ],
)
def test_options_about_processes(
    capsys: pytest.CaptureFixture, options: dict[str, Any], expected: str
) -> None:
    defaults = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    args = argparse.Namespace(**defaults | options)
    assert expected in error_of(capsys, lambda: run(lambda _: None, args))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at processes of Linux")
def test_processes_end_with_their_launcher(config: Path) -> None:
    """It is killed while they import, when it can pass nothing on."""
    options = ("--num-gpus", "2", "train.max_iter=10000000", "train.checkpointer.period=10000000")
    process = start(*options, config=config)
    children = wait_for(lambda: children_of(process.pid))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_alive, children)))
    assert not (config.parent / "out").exists()


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return what a condition gives as soon as it is true, at most for a minute."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started: two and the tracker of multiprocessing."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found] if len(found) == 3 else []


def is_alive(pid: int) -> bool:
    """Whether a process still runs; a zombie, which nobody has waited for, does not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
