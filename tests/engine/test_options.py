"""Effects of the `train.*` options on a run."""

import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import Tensor, nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.data import DetectionMapper
from brloss_d2.engine import load_config
from brloss_d2.engine.config.values import _check_groups
from brloss_d2.engine.hooks import writers
from brloss_d2.engine.hooks.checkpoints import BestCheckpointer
from brloss_d2.engine.prepare import _check_metrics
from brloss_d2.errors import InputError
from brloss_d2.evaluation import CityscapesEvaluator, COCOEvaluator

TrainNet = Callable[..., Path]
MAX_ITER = 4  # of the toy config


def load(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=True)


def model(out: Path, name: str = "model_final.pth") -> dict[str, Tensor]:
    return load(out / name)["model"]


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]


def hook(out: Path, name: str, file: str = "model_final.pth") -> dict[str, Any]:
    return load(out / file)["trainer"]["hooks"][name]


def refusal(capsys: pytest.CaptureFixture, train_net: TrainNet, *args: str, **more: bool) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train_net(*args, **more)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.accumulate=0", "train.accumulate"),
        ("train.ema.decay=1.0", "less than 1"),
        ("train.ema.decay=nan", "at least 0"),
        ("train.clip_grad_norm=nan", "at least 0"),
        ("train.best_mode=most", "max or min"),
        ("train.seed=99999999999999999999", "at most 2147483647"),
        ("train.output_dir=a\tb", "without tabs"),
        ("train.early_stopping.patience=-1", "at least 0"),
        ("train.early_stopping={patience: 1}", "train.eval_period"),
        ("train.auto_scale_lr=-1", "train.auto_scale_lr"),
        ("train.expected_results=[bbox,AP,78,5]", r"such as \[\[bbox,AP,78,5\]\]"),
        ("train.expected_results=[[bbox,AP,78]]", "tolerances"),
        ("train.expected_results=[[bbox,AP,high,5]]", "tolerances"),
        ("train.expected_results=78", "tolerances"),
    ],
)
def test_values_out_of_range(config: Path, override: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        load_config(str(config), ["train.eval_period=0", override])


def test_accumulating_equals_a_larger_batch(train_net: TrainNet, tmp_path: Path) -> None:
    """With images of one aspect ratio, so that both runs batch the same images."""
    data = ("dataloader.train.dataset.images=1", "optimizer.lr=0.003")
    large = model(train_net(*data, "dataloader.train.total_batch_size=4"))
    other = tmp_path / "small"
    train_net(*data, "train.accumulate=2", f"train.output_dir={other}")
    small = model(other)
    assert small.pop("steps") == 2 * large.pop("steps") == 2 * MAX_ITER
    assert all(torch.allclose(large[name], small[name], rtol=1e-4) for name in large)
    first, last = (lines(out)[0]["total_loss"] for out in (tmp_path / "out", other))
    assert first == pytest.approx(last, rel=1e-5)


def test_ema_is_evaluated_and_saved_beside_the_weights(train_net: TrainNet) -> None:
    ema = ("train.ema={enabled: True, decay: 0.5}", "train.eval_period=2")
    out = train_net(*ema, "train.best_metric=ema/bbox/AP")
    weight = "linear.weight"
    # With decays of 0.1, 2/11, 0.25 and 4/13 from the weights before the first step.
    torch.manual_seed(1)
    expected = torch.nn.Linear(3, 3).weight.detach()
    weights = [model(out, f"model_{i:07d}.pth")[weight] for i in (1, 3)]
    averaged = model(out, "model_final_ema.pth")
    assert not torch.equal(averaged[weight], model(out)[weight])
    assert averaged["steps"] == model(out)["steps"] == MAX_ITER, "buffers are those of the model"
    low, high = torch.stack([expected, *weights]).aminmax(dim=0)
    assert bool(((low <= averaged[weight]) & (averaged[weight] <= high)).all())
    assert hook(out, "EMA")["updates"] == MAX_ITER
    assert torch.equal(hook(out, "EMA")["weights"][weight], averaged[weight])
    found = [line for line in lines(out) if "ema/bbox/AP" in line]
    assert [line["iteration"] for line in found] == [1, 4]
    assert all("bbox/AP" in line for line in found)
    folders = (out / "evaluated.txt").read_text() + (out / "inference/evaluated.txt").read_text()
    assert folders.split() == [f"{out}/inference"] * 2 + [f"{out}/inference/ema"] * 2
    # The first evaluation was the best, of the averaged weights.
    best = load(out / "model_best.pth")
    assert best["iteration"] == 1 and best["metric"] == "ema/bbox/AP" and best["value"] == 100
    assert torch.equal(
        best["model"][weight], hook(out, "EMA", "model_0000001.pth")["weights"][weight]
    )


def test_the_best_survives_a_restart(
    train_net: TrainNet, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    options = ("train.eval_period=1", "lr_multiplier.end_value=1.0")
    scores = "dataloader.evaluator.scores"
    out = train_net(*options, "train.max_iter=3", f"{scores}=[10,30,20]")
    best = load(out / "model_best.pth")
    assert (best["iteration"], best["value"]) == (1, 30)
    assert "trainer" not in best
    assert (out / "last_checkpoint").read_text() == "model_final.pth", "where to resume from"
    capsys.readouterr()
    train_net(*options, "train.max_iter=5", f"{scores}=[0,0,0,25,40]", resume=True)
    assert "best bbox/AP 30" in capsys.readouterr().out, "as it says what it resumes"
    best = load(out / "model_best.pth")
    assert (best["iteration"], best["value"]) == (4, 40), "25 is less than 30"


def test_less_may_be_better(train_net: TrainNet) -> None:
    less = ("train.best_mode=min", "dataloader.evaluator.scores=[10,5,7,9]")
    out = train_net("train.eval_period=1", *less)
    assert load(out / "model_best.pth")["value"] == 5


@pytest.mark.parametrize(
    ("metric", "mode", "best"),
    [
        ("bbox/oLRP", "auto", 5),
        ("bbox/oLRP_Loc", "auto", 5),
        ("ema/bbox/oLRP-nut", "auto", 5),
        ("bbox/AP50", "auto", 9),
        ("bbox/oLRP", "max", 9),
    ],
)
def test_the_lowest_olrp_is_the_best(metric: str, mode: str, best: float, tmp_path: Path) -> None:
    hook = BestCheckpointer(Checkpointer(nn.Linear(1, 1), str(tmp_path)), metric, mode)
    for iteration, value in enumerate((7.0, 5.0, 9.0)):
        hook.after_evaluation({metric: value}, iteration)
    assert hook.best == best


def test_masks_need_a_config_that_learns_them(config: Path) -> None:
    cfg, _ = load_config(str(config), ["train.best_metric=segm/AP"])
    cfg.dataloader.evaluator = L(COCOEvaluator)(dataset_name="a")
    cfg.dataloader.train.mapper = L(DetectionMapper)(is_train=True, augmentations=[])
    with pytest.raises(InputError, match="segm/AP is no metric"):
        _check_metrics(cfg, None, training=True)
    cfg.dataloader.evaluator.tasks = ["bbox", "segm"]
    with pytest.raises(InputError, match="this config learns no masks"):
        _check_metrics(cfg, None, training=False)
    cfg.dataloader.train.mapper.use_instance_mask = True
    _check_metrics(cfg, None, training=True)


@pytest.mark.parametrize(
    ("group", "part"),
    [
        ({"weight_dcay": 0}, "SGD has no weight_dcay. Did you mean weight_decay"),
        ({"momentum": -1}, "momentum is -1: expected a number, at least 0"),
        ({"lr": -0.1}, "lr is -0.1: expected a number, at least 0"),
        ({"lr": float("nan")}, "lr is nan: expected a number, at least 0"),
    ],
)
def test_options_of_parameter_groups(group: dict[str, float], part: str) -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], **group}]
    with pytest.raises(InputError, match=part):
        _check_groups(torch.optim.SGD(groups, lr=0.1))


@pytest.mark.parametrize("name", ["ü ~n#;x,y=(a)[b]{c}", "2024_11_28", "true", "1e5"])
def test_folders_need_no_quotes(config: Path, name: str) -> None:
    for text in (f"train.output_dir={name}", f'train.output_dir="{name}"'):
        assert load_config(str(config), [text])[0].train.output_dir == name


def test_an_unknown_metric_names_those_there_are(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    out = train_net("train.best_metric=segm/AP")
    expected = "train.best_metric=segm/AP is not among the results of the evaluation (bbox/AP)"
    assert expected in capsys.readouterr().out
    assert not (out / "model_best.pth").exists()


def test_options_that_contradict_each_other(
    train_net: TrainNet, coco: list[str], capsys: pytest.CaptureFixture
) -> None:
    message = refusal(capsys, train_net, resume=True, eval_only=True)
    assert "--resume continues a training, --eval-only has none" in message
    target = "dataloader.evaluator._target_=brloss_d2.evaluation.COCOEvaluator"
    name = "+dataloader.evaluator.dataset_name=custom_val"
    message = refusal(capsys, train_net, *coco, target, name, "+dataloader.evaluator.tasks=[0,0]")
    assert "dataloader.evaluator.tasks is [0, 0]: expected a list of bbox, segm" in message


@pytest.mark.parametrize(
    ("metric", "target", "part"),
    [
        ("ema/bbox/AP", None, "needs train.ema.enabled=True"),
        ("bbox/ap", COCOEvaluator, "Did you mean bbox/AP?"),
        ("AP", COCOEvaluator, "Expected TASK/METRIC"),
        ("bbox/APr", COCOEvaluator, "is no metric of this evaluation"),
        ("bbox/AP-nuts", COCOEvaluator, "Did you mean bbox/AP-nut?"),
        ("segm_cityscapes/AP75", CityscapesEvaluator, "Did you mean segm_cityscapes/AP"),
    ],
)
def test_metrics_that_cannot_be(config: Path, metric: str, target: type | None, part: str) -> None:
    cfg, _ = load_config(str(config), [f"train.best_metric={metric}"])
    if target is not None:
        cfg.dataloader.evaluator = L(target)(dataset_name="a")
    with pytest.raises(InputError, match=re.escape(part)):
        _check_metrics(cfg, {1: "nut", 2: "bolt"}, training=True)


@pytest.mark.parametrize("metric", ["", "bbox/AP", "segm/oLRP", "bbox/AP-nut", "bbox/oLRP-bolt"])
def test_metrics_that_may_be(config: Path, metric: str) -> None:
    cfg, _ = load_config(str(config), [f"train.best_metric={metric}"])
    cfg.dataloader.evaluator = L(COCOEvaluator)(dataset_name="a")
    _check_metrics(cfg, {1: "nut", 2: "bolt"}, training=True)
    _check_metrics(cfg, None, training=True)
    cfg.train.best_metric, cfg.dataloader.evaluator.tasks = "bbox/AP", ("segm",)
    _check_metrics(cfg, None, training=True)  # the default


def test_early_stopping(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    scores = "dataloader.evaluator.scores=[9,8,9,7,8,9]"
    options = ("train.eval_period=1", "train.max_iter=9", "lr_multiplier.end_value=1.0", scores)
    patience = "train.early_stopping.patience"
    first = train_net(*options, "train.max_iter=3", f"{patience}=3")
    assert hook(first, "EarlyStopping")["waited"] == 2
    out = train_net(*options, f"{patience}=3", resume=True)
    shown = capsys.readouterr().out
    assert "No better bbox/AP in 3 evaluations" in shown
    assert "stopped after 4 of 9 iterations.\n" in shown
    assert load(out / "model_final.pth")["iteration"] == 3
    train_net(*options, f"{patience}=3", resume=True)
    assert "finished before" in capsys.readouterr().out
    train_net(*options, f"{patience}=5", resume=True)
    assert load(out / "model_final.pth")["iteration"] == 5, "two more"


def test_old_checkpoints_are_removed_by_a_resumed_run_too(train_net: TrainNet) -> None:
    often = ("train.checkpointer={period: 1, max_to_keep: 2}", "lr_multiplier.end_value=1.0")
    train_net(*often, "train.max_iter=2")
    out = train_net(*often, resume=True)
    assert sorted(f.name for f in out.glob("model_0*")) == [
        "model_0000002.pth",
        "model_0000003.pth",
    ]


def test_an_evaluation_that_was_cut_off_is_made_up_for(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    options = ("train.eval_period=2", "dataloader.evaluator.fail_from=0")
    with pytest.raises(RuntimeError, match="no evaluation"):
        train_net(*options)
    out = train_net("train.eval_period=2", resume=True)
    assert "Evaluating after iteration 1," in capsys.readouterr().out
    assert [line["iteration"] for line in lines(out) if "bbox/AP" in line] == [1, 4]
    train_net("train.eval_period=2", "lr_multiplier.end_value=0.1", resume=True)
    assert "Evaluating after" not in capsys.readouterr().out


def test_the_learning_rate_follows_the_images(
    train_net: TrainNet, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    scaled = ("train.auto_scale_lr=16", "train.accumulate=2")  # 4 images
    out = train_net(*scaled)
    assert lines(out)[0]["lr"] == pytest.approx(0.01 * 4 / 16)
    assert "Learning rate 0.01 x 4 / 16 = 0.0025" in capsys.readouterr().out
    again = tmp_path / "again"
    train_net(f"train.output_dir={again}", file=out / "config.yaml")
    assert lines(again)[0]["lr"] == pytest.approx(0.0025), "not twice"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("train.max_iter=8", "train.max_iter was 4, now 8"),
        ("optimizer.lr=0.02", "lr was 0.01, now 0.02"),
        ("optimizer.weight_decay=0.1", "weight_decay was 0, now 0.1"),
        ("dataloader.train.total_batch_size=4", "images in a step was 2, now 4"),
        ("lr_multiplier.end_value=0.5", "of the learning rate at iteration 1"),
    ],
)
def test_resume_refuses_to_mix_schedules(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture, change: str, part: str
) -> None:
    stop(train_net)
    before = (config.parent / "out" / "metrics.json").read_text()
    message = refusal(capsys, train_net, change, resume=True)
    assert part in message and "train.mix_schedules=True" in message
    assert (config.parent / "out" / "metrics.json").read_text() == before
    out = train_net(change, "train.mix_schedules=True", resume=True)
    if change.startswith("optimizer"):
        name, value = change.removeprefix("optimizer.").split("=")
        key = "initial_lr" if name == "lr" else name
        group = load(out / "model_final.pth")["trainer"]["optimizer"]["param_groups"][0]
        assert group[key] == float(value), "that of the config, not of the checkpoint"


def test_another_optimizer_cannot_go_on(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture
) -> None:
    stop(train_net)
    adam = (
        config.read_text().replace("import SGD", "import Adam as SGD").replace(", momentum=0.9", "")
    )
    config.write_text(adam)
    message = refusal(capsys, train_net, "train.mix_schedules=True", resume=True)
    assert "optimizer was SGD, now Adam" in message and "train.init_checkpoint" in message


def stop(train_net: TrainNet) -> None:
    with pytest.raises(SystemExit):
        train_net("model.stop_from=1")


def test_a_seed_fixes_all_and_none_differs(train_net: TrainNet, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> Tensor:
        out = f"train.output_dir={tmp_path / name}"
        train_net(out, f"train.seed={seed}", "model.dropout=0.5", "train.max_iter=2")
        return model(tmp_path / name)["linear.weight"]

    assert torch.equal(run("a", 3), run("b", 3))
    assert not torch.equal(run("c", -1), run("d", -1))
    assert hook(tmp_path / "c", "RunState")["seed"] != hook(tmp_path / "d", "RunState")["seed"]


def test_a_run_with_a_seed_of_its_own_resumes_with_it(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    stop(lambda opt: train_net(opt, "train.seed=-1"))
    out = train_net("train.seed=-1", resume=True)
    seed = hook(out, "RunState", "model_0000001.pth")["seed"]
    assert hook(out, "RunState")["seed"] == seed
    assert f"2 of 4 iterations done, seed {seed}" in capsys.readouterr().out


@pytest.fixture
def torch_settings() -> Iterator[None]:
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.deterministic
    yield
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = cudnn


def test_settings_of_torch(train_net: TrainNet, torch_settings: None, tmp_path: Path) -> None:
    train_net("train.max_iter=1")
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()
    switches = ("train.tf32=True", "train.deterministic=True", "train.cudnn_benchmark=True")
    train_net("train.max_iter=1", *switches, f"train.output_dir={tmp_path / 'b'}")
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_a_new_run_in_an_old_folder_does_not_mix_its_numbers(train_net: TrainNet) -> None:
    train_net()
    out = train_net("train.max_iter=2")
    assert [line["iteration"] for line in lines(out) if "total_loss" in line] == [0, 1]
    assert (out / "earlier_1" / "metrics.json").is_file()


def test_one_line_of_what_is_logged(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    out = train_net("train.max_iter=4", "train.log_period=2", "model.measured=True")
    line = lines(out)[-2]
    assert {"total_loss", "loss_rank", "lr", "data_time", "time", "max_mem_mb"} <= line.keys()
    shown = capsys.readouterr().out
    assert "roi_head/box_reg_unbalanced: 0.5  roi_head/num_positives: 7" in shown
    assert "max_mem" in shown


def test_tensorboard_is_written_or_missed_in_one_line(
    train_net: TrainNet, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = train_net("train.max_iter=1")
    assert len(list(out.glob("events.out.tfevents.*"))) == 1
    find = writers.importlib.util.find_spec
    monkeypatch.setattr(
        writers.importlib.util, "find_spec", lambda n: None if n == "tensorboard" else find(n)
    )
    capsys.readouterr()
    train_net("train.max_iter=1")
    assert capsys.readouterr().out.count("TensorBoard is not installed") == 1
    assert not list(out.glob("events.out.tfevents.*"))
    assert len(list(out.glob("earlier_1/events.out.tfevents.*"))) == 1


def test_wandb_has_to_be_there(
    train_net: TrainNet,
    config: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install wandb" in refusal(capsys, train_net, "train.wandb=detectors")
    assert not (config.parent / "out").exists()


def test_wandb_gets_the_numbers_of_one_run(
    train_net: TrainNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    logged: list[dict[str, Any]] = []
    run = types.SimpleNamespace(
        id="abc", define_metric=lambda *a, **k: None, log=logged.append, finish=lambda: None
    )
    module = types.SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    stop(lambda opt: train_net(opt, "train.wandb=detectors"))
    train_net("train.wandb=detectors", resume=True)
    assert [call["id"] for call in calls] == [None, "abc"]
    assert calls[0]["project"] == "detectors" and calls[0]["name"] == "out"
    assert calls[0]["config"]["train"]["max_iter"] == MAX_ITER
    losses = [(x["iteration"], x["total_loss"]) for x in logged if "total_loss" in x]
    assert [iteration for iteration, _ in sorted(set(losses))] == [0, 1, 2, 3]


def test_a_terminal_shows_a_bar_instead_of_lines(
    train_net: TrainNet, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    out = train_net("train.eval_period=2")
    shown = capsys.readouterr().out
    assert "4/4" in shown and "loss=" in shown
    assert "eta: " not in shown and "eta: " in (out / "log.txt").read_text()
    assert "evaluation: " in shown and "Results:" in shown
    assert "Start inference" not in shown and "Start inference" in (out / "log.txt").read_text()
