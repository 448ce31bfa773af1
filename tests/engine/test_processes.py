"""train_net.py as a program of one or several processes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from brloss_d2.cli.train import check, train
from brloss_d2.engine import launch
from tests.helpers.programs import TORCHRUN, Programs, train_net, train_net_words


@pytest.mark.parametrize(("launcher", "options"), [((), ("--num-gpus", "2")), (TORCHRUN, ())])
def test_two_processes_train_and_evaluate(
    config: Path, launcher: Sequence[str], options: Sequence[str]
) -> None:
    result = train_net(*options, config=config, launcher=launcher)
    assert result.returncode == 0, result.stderr
    assert "2 processes" in result.stdout
    assert result.stdout.count("Results:") == 1
    assert "100.00" in result.stdout, "each process evaluates its share of the images"
    out = config.parent / "out"
    assert torch.load(out / "model_final.pth", weights_only=True)["iteration"] == 3


def test_two_processes_take_the_steps_of_one(
    programs: Programs, config: Path, tmp_path: Path
) -> None:
    """With accumulation, averaged weights, and early stopping by metrics of one process only."""
    options = (
        *("dataloader.train.dataset.images=1", "optimizer.lr=0.003", "train.ema.enabled=True"),
        *("train.max_iter=9", "train.eval_period=1", "train.early_stopping.patience=2"),
        "dataloader.evaluator.scores=[9,8,7,6]",
    )
    two, one = tmp_path / "two", tmp_path / "one"
    larger = (f"train.output_dir={one}", "dataloader.train.total_batch_size=4")
    stopped = "stopped after 3 of 9 iterations"
    assert stopped in programs.train_net(*options, *larger, config=config)
    options = (*options, f"train.output_dir={two}", "train.accumulate=2")
    assert stopped in programs.train_net("--num-gpus", "2", *options, config=config)
    for name in ("model_final.pth", "model_final_ema.pth"):
        a, b = (torch.load(out / name, weights_only=True)["model"] for out in (two, one))
        weight = "linear.weight"
        assert torch.allclose(a[weight], b[weight], rtol=1e-5), name


def test_divergence_in_one_of_two_processes_ends_both(programs: Programs, config: Path) -> None:
    options = ("--num-gpus", "2", "model.nan_from=1", "model.nan_rank=1")
    status, output = programs.finish(train_net_words(*options, config=config), config.parent)
    assert status == 1
    assert output.count("error: ") == 1
    assert "iteration 1: loss_box_reg is nan" in output.partition("error: ")[2]
    assert "Traceback" not in output


def test_a_mistake_is_told_once_by_two_processes(config: Path) -> None:
    result = train_net("train.max_itr=3", config=config, launcher=TORCHRUN)
    assert result.returncode == 1
    assert result.stderr.count("train.max_itr") == 1
    assert "train_net.py FAILED" in result.stderr, "torchrun learns of it"
    assert not (config.parent / "out").exists()


@pytest.mark.parametrize(
    ("processes", "option", "message"),
    [
        (3, "train.seed=1", "total_batch_size=2: expected a multiple of 3, the number of"),
        (4, "data.train=a.json", "total_batch_size=2: expected a multiple of 4"),
        (2, "train.device=cuda", "train.device is 'cuda', but torch finds no GPU"),
        (10_000, "dataloader.train.total_batch_size=10000", "without a GPU, processes share the"),
    ],
)
def test_mistakes_are_told_before_processes_start(
    config: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    option: str,
    message: str,
) -> None:
    monkeypatch.setattr(launch, "start_processes", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = {"num_gpus": processes, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    args = argparse.Namespace(
        config_file=str(config), opts=[option], eval_only=False, resume=False, **options
    )
    with pytest.raises(SystemExit):
        launch.run(train, args, check)
    assert message in capsys.readouterr().err
