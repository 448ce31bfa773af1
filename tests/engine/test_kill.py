"""A run that is killed and resumed equals one that is not, to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import toy
from tests.helpers.programs import TORCHRUN, Programs, train_net

# Everything that has a state: dropout, a balancer, momentum, averaged weights, two aspect ratios,
# workers that map at random, evaluation between checkpoints.
OPTIONS = (
    *("model.dropout=0.5", "dataloader.train.dataset.images=7", "dataloader.train.num_workers=2"),
    *("train.max_iter=12", "train.checkpointer.period=3", "train.eval_period=4"),
    *("train.ema.enabled=True", "train.accumulate=2"),
)
TIMES = ("time", "data_time", "rank_data_time", "eta_seconds", "max_mem_mb")


def curve(out: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.json without the times."""
    lines = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    return [{name: x for name, x in line.items() if name not in TIMES} for line in lines]


def states(out: Path) -> dict[str, Any]:
    """Return the tensors of the last checkpoint by name: weights, averages, momenta."""
    checkpoint = torch.load(out / "model_final.pth", weights_only=True)
    trainer = checkpoint["trainer"]
    momenta = {str(i): s["momentum_buffer"] for i, s in trainer["optimizer"]["state"].items()}
    other = trainer["hooks"]["RunState"]["processes"][-1]["buffers"]
    others = {f"other.{name}": value for name, value in other.items()}
    return {**checkpoint["model"], **trainer["hooks"]["EMA"]["weights"], **momenta, **others}


@pytest.fixture(scope="module")
def whole(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    config = folder / "config.py"
    config.write_text(toy.CONFIG, encoding="utf-8")
    programs.train_net(*OPTIONS, f"train.output_dir={folder}", config=config)
    return folder


# In a step of iteration 0, 3 and 4, of which 3 begins from a checkpoint. Two steps each.
@pytest.mark.parametrize(("step", "workers"), [(1, 2), (6, 1), (9, 0)])
def test_killed_anywhere(
    programs: Programs, config: Path, whole: Path, step: int, workers: int
) -> None:
    options = (*OPTIONS, f"dataloader.train.num_workers={workers}")
    with pytest.raises(AssertionError, match="exit status -9"):
        programs.train_net(*options, f"model.kill_from={step}", config=config)
    killed = config.parent / "out"
    assert not (killed / "model_final.pth").exists()
    programs.train_net("--resume", *options, config=config)
    check(killed, whole)


TWO = ("--resume", *OPTIONS, "dataloader.train.total_batch_size=4", "model.nan_rank=1")
FATAL = "model.kill_from=15"


@pytest.fixture(scope="module")
def whole_of_two(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    config = folder / "config.py"
    config.write_text(toy.CONFIG, encoding="utf-8")
    programs.train_net("--num-gpus", "2", *TWO, f"train.output_dir={folder}", config=config)
    return folder


def test_two_processes_of_which_one_is_killed(
    programs: Programs, config: Path, whole_of_two: Path
) -> None:
    killed = config.parent / "out"
    with pytest.raises(AssertionError, match="exit status 1"):
        programs.train_net("--num-gpus", "2", *TWO, FATAL, config=config)
    assert not (killed / "model_final.pth").exists()
    programs.train_net("--num-gpus", "2", *TWO, config=config)
    check(killed, whole_of_two)
    assert any(name.startswith("other.balancer") for name in states(whole_of_two)), "it has its own"


def test_torchrun_starts_them_again(config: Path, whole_of_two: Path) -> None:
    """Without the store of the first attempt, in which are the addresses of its processes."""
    launcher = (*TORCHRUN, "--max-restarts", "1")
    result = train_net(*TWO, FATAL, config=config, launcher=launcher)
    assert result.returncode == 0, result.stderr
    assert "6 of 12 iterations done" in result.stdout
    check(config.parent / "out", whole_of_two)


def check(killed: Path, whole: Path) -> None:
    assert len([line for line in curve(whole) if "total_loss" in line]) == 12
    assert curve(killed) == curve(whole)
    expected, found = states(whole), states(killed)
    assert len(expected) > 8
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
