"""Whole runs of train_net.py's main function in this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

TrainNet = Callable[..., Path]


def weights(out: Path, name: str = "model_final.pth") -> dict[str, torch.Tensor]:
    return torch.load(out / name, weights_only=True)["model"]


def fails(train_net: TrainNet, capsys: pytest.CaptureFixture, *args: str, **options: bool) -> str:
    """Run, expect exit status 1 with one message, and return that message."""
    with pytest.raises(SystemExit) as end:
        train_net(*args, **options)
    assert end.value.code == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    assert captured.err.count("error: ") == 1
    return captured.err.partition("error: ")[2]


def test_train_evaluates_and_says_where_things_are(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    out = train_net("train.eval_period=2")
    shown = capsys.readouterr().out
    assert (out / "log.txt").is_file()
    assert "eta: " in shown and "iter: 3" in shown
    end = shown[shown.rindex("Results:") :]
    assert "bbox" in end and "100.00" in end and "AP-red" not in end
    assert f"Checkpoint: {out / 'model_final.pth'}" in end
    assert f"Log:        {out / 'log.txt'}" in end

    metrics = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    losses = [m["total_loss"] for m in metrics if "total_loss" in m]
    assert losses[-1] < losses[0]
    assert [m["iteration"] for m in metrics if "bbox/AP" in m] == [1, 4]
    assert weights(out)["steps"] == 4


def test_resume_continues_and_equals_one_run(train_net: TrainNet, tmp_path: Path) -> None:
    constant = "lr_multiplier.end_value=1.0"  # so that it does not depend on max_iter
    whole = weights(train_net(constant))
    half = f"train.output_dir={tmp_path / 'half'}"
    train_net(constant, half, "train.max_iter=2")
    train_net(constant, half, resume=True)
    resumed = weights(tmp_path / "half")
    assert resumed["steps"] == 4, "buffers go with the model"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    state = torch.load(tmp_path / "half" / "model_final.pth", weights_only=True)
    assert state["iteration"] == 3 and state["trainer"]["iteration"] == 3


def test_resume_of_a_finished_run_only_evaluates(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    out = train_net("train.max_iter=1")
    before = (out / "model_final.pth").stat().st_mtime_ns
    capsys.readouterr()
    train_net("train.max_iter=1", resume=True)
    shown = capsys.readouterr().out
    assert "finished before" in shown and "100.00" in shown
    assert (out / "model_final.pth").stat().st_mtime_ns == before


def test_eval_only_finds_the_checkpoint_of_the_run(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    out = train_net("train.max_iter=2")
    capsys.readouterr()
    # A run that began with ImageNet weights is not to be evaluated with them.
    train_net("train.init_checkpoint=torchvision://resnet50", eval_only=True)
    shown = capsys.readouterr().out
    assert "100.00" in shown and f"Checkpoint: {out / 'model_final.pth'}" in shown
    (out / "model_final.pth").unlink()
    (out / "last_checkpoint").write_text("model_0000001.pth")
    train_net(eval_only=True)
    assert f"Checkpoint: {out / 'model_0000001.pth'}" in capsys.readouterr().out


def test_eval_only_of_a_fine_tuned_run_takes_its_own_weights(
    train_net: TrainNet, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its config names the weights that it started from, as the configs of Cityscapes do."""
    first = train_net("train.max_iter=1") / "model_final.pth"
    tuned = tmp_path / "tuned"
    train_net(f"train.init_checkpoint={first}", f"train.output_dir={tuned}")
    capsys.readouterr()
    train_net(file=tuned / "config.yaml", eval_only=True)
    assert f"Checkpoint: {tuned / 'model_final.pth'}" in capsys.readouterr().out
    train_net(f"train.init_checkpoint={first}", file=tuned / "config.yaml", eval_only=True)
    assert f"Checkpoint: {first}" in capsys.readouterr().out
    other = f"train.output_dir={tmp_path / 'other'}"
    train_net(other, file=tuned / "config.yaml", eval_only=True)
    assert f"Checkpoint: {first}" in capsys.readouterr().out


def test_the_dumped_config_repeats_the_run(train_net: TrainNet, tmp_path: Path) -> None:
    out = train_net("optimizer.lr=0.02", "+optimizer.nesterov=True", "train.max_iter=2")
    first = weights(out)
    again = tmp_path / "again"
    train_net(f"train.output_dir={again}", file=out / "config.yaml")
    assert all(torch.equal(first[name], weights(again)[name]) for name in first)


def test_without_evaluator_nothing_is_evaluated(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    out = train_net("dataloader.evaluator=null", "train.eval_period=1", "train.max_iter=2")
    shown = capsys.readouterr().out
    assert "inference" not in shown.partition("Starting")[2] and "Results" not in shown
    assert (out / "model_final.pth").is_file()


@pytest.mark.parametrize(
    ("opt", "part"),
    [
        ("train.max_itr=3", "train.max_itr"),
        ("train.init_checkpoint=no_such.pth", "no_such.pth"),
        ("train.init_checkpoint=torchvision://resnet51", "resnet50"),
        ("train.device=cuda:99" if torch.cuda.is_available() else "train.device=cuda", "GPU"),
        ("train.device=gpu", "train.device"),
        ("data.val=no_such.json", "no_such.json"),
        ("dataloader.train=null", "dataloader.train"),
        ("+dataloader.train.dataset.names=no_such_set", "no_such_set"),
        ("+dataloader.train.dataset.json_file=no_such.json", "no_such.json"),
        ("--resume", "--resume"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture, opt: str, part: str
) -> None:
    assert part in fails(train_net, capsys, opt)
    assert not (config.parent / "out").exists()


def test_training_needs_training_data(
    train_net: TrainNet, config: Path, coco: list[str], capsys: pytest.CaptureFixture
) -> None:
    _, val = coco
    assert "data.train is not given" in fails(train_net, capsys, val)
    assert not (config.parent / "out").exists()
    assert "nothing to evaluate" in fails(train_net, capsys, val, eval_only=True)


def test_nothing_to_evaluate(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "nothing to evaluate" in fails(train_net, capsys, eval_only=True)
    assert "evaluator" in fails(train_net, capsys, "dataloader.evaluator=null", eval_only=True)
    assert not (config.parent / "out").exists()


def test_output_folder_that_is_a_file(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "no folder" in fails(train_net, capsys, f"train.output_dir={config}/out")


def test_a_checkpoint_of_another_model_is_not_evaluated(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    train_net("train.max_iter=1")
    capsys.readouterr()
    assert "linear.weight" in fails(train_net, capsys, "model.num_classes=5", eval_only=True)
    assert "linear.weight" in fails(train_net, capsys, "model.num_classes=5", resume=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_ends_with_one_message(
    train_net: TrainNet, capsys: pytest.CaptureFixture, workers: int
) -> None:
    message = fails(
        train_net,
        capsys,
        "dataloader.train.mapper.corrupt=images/1.png",
        f"dataloader.train.num_workers={workers}",
    )
    assert message == "Image file unreadable: images/1.png\n"


def test_divergence_ends_with_one_message(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture
) -> None:
    message = fails(train_net, capsys, "model.nan_from=3")
    assert "iteration 3: loss_box_reg is nan" in message
    assert "images/0.png" in message and "images/1.png" in message
    log = (config.parent / "out" / "log.txt").read_text()
    assert message.strip() in log
    assert "Start inference" not in log, "no evaluation after a failed last iteration"


def test_another_exception_keeps_its_traceback(train_net: TrainNet, config: Path) -> None:
    config.write_text(config.read_text() + "raise RuntimeError('in the config')\n")
    with pytest.raises(RuntimeError, match="in the config"):
        train_net()


def test_the_log_has_the_traceback_of_another_exception(train_net: TrainNet, config: Path) -> None:
    with pytest.raises(RuntimeError, match="no evaluation"):
        train_net("train.max_iter=1", "dataloader.evaluator.fail_from=0")
    assert "Traceback" in (config.parent / "out" / "log.txt").read_text()
