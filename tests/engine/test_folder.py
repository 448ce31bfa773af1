"""The output folder belongs to one run, of one model and one list of classes."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from brloss_d2.checkpoint import fingerprint
from brloss_d2.engine import folder as folder_module
from brloss_d2.engine.folder import RUN_FILES, find_last_checkpoint, reserved, set_aside
from brloss_d2.errors import InputError
from tests.engine.test_options import lines, load, refusal, stop

TrainNet = Callable[..., Path]
WEIGHT = "linear.weight"
SPLITS = ("train", "test")


@contextmanager
def another_run(folder: Path) -> Iterator[int]:
    """Let another process reserve a folder, and yield its id; it is killed at the end."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with reserved(str(folder)):
                os.write(write, b"1")
                signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(read, 1) == b"1"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_one_run_at_a_time(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    out = train_net("train.max_iter=1")
    before = sorted(path.name for path in out.iterdir())
    assert "run.lock" not in before
    with another_run(out) as pid:
        message = refusal(capsys, train_net, "train.max_iter=2")
        assert f"Another run writes to {out} (process {pid} on " in message
        assert sorted(path.name for path in out.iterdir()) == sorted([*before, "run.lock"])
        train_net("train.max_iter=1", eval_only=True)
    assert (out / "run.lock").is_file(), "kill -9 leaves it"
    train_net("train.max_iter=1", resume=True)
    assert not (out / "run.lock").exists()


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        ('{"host": "elsewhere", "boot": "other", "process": 7, "since": "today"}', False),
        ('{"host": "elsewhere", "boot": "%(boot)s", "process": 7}', True),  # another container
        ('{"host": "%(host)s", "boot": "other", "process": 7}', True),  # before a restart
        ("", True),
        ("[]", True),
        ('{"host"', True),
    ],
)
def test_locks_of_machines_that_cannot_be_asked(
    tmp_path: Path, content: str, accepted: bool
) -> None:
    boot = Path(folder_module._BOOT_ID)
    own = {"host": os.uname().nodename, "boot": "none"}
    if boot.exists():
        own["boot"] = boot.read_text().strip()
    (tmp_path / "run.lock").write_text(content % own if "%" in content else content)
    if accepted:
        with reserved(str(tmp_path)):
            assert str(os.getpid()) in (tmp_path / "run.lock").read_text()
    else:
        with (
            pytest.raises(InputError, match=r"process 7 on elsewhere, since today.*delete .*lock"),
            reserved(str(tmp_path)),
        ):
            pass


def test_an_earlier_run_stays_a_run(train_net: TrainNet, tmp_path: Path) -> None:
    out = train_net("train.max_iter=2", "train.ema.enabled=True", "train.eval_period=1")
    for name in ("calibration.json", "categories.json", "notes.txt"):
        (out / name).write_text("{}")
    (out / "analysis").mkdir()
    written = {path.name for path in out.iterdir()} - {"log.txt", "notes.txt", "evaluated.txt"}
    with pytest.raises(RuntimeError):
        train_net("dataloader.evaluator.fail_from=0", "train.checkpointer.period=9")
    with pytest.raises(RuntimeError):
        train_net("dataloader.evaluator.fail_from=0", "train.max_iter=1")
    assert {path.name for path in (out / "earlier_1").iterdir()} == written
    assert (out / "earlier_2" / "config.yaml").is_file()
    assert not {"calibration.json", "analysis", "model_best.pth"} & set(os.listdir(out))
    assert (out / "notes.txt").is_file(), "of the user"
    train_net(
        f"train.output_dir={out / 'earlier_1'}",
        *("train.max_iter=3", "train.mix_schedules=True", "train.ema.enabled=True"),
        resume=True,
    )
    assert load(out / "earlier_1" / "model_final.pth")["iteration"] == 2


def test_a_run_that_cannot_start_leaves_the_earlier_one(train_net: TrainNet) -> None:
    out = train_net("train.max_iter=1")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    for part in ("model", "dataloader.evaluator", "dataloader.test.dataset", "optimizer"):
        with pytest.raises((TypeError, SystemExit)):
            train_net(f"+{part}.extra=3")
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    assert {k for k in after if after[k] != before.get(k)} == {"log.txt"}


def test_a_run_that_dies_early_is_not_taken_for_the_earlier_one(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    out = train_net()
    options = ("train.checkpointer.period=9", "model.nan_from=1")
    assert "diverged" in refusal(capsys, train_net, *options)
    train_net(resume=True)
    assert "Nothing to resume" in capsys.readouterr().out
    assert load(out / "model_final.pth")["iteration"] == 3


def test_evaluation_changes_nothing_of_the_run(
    train_net: TrainNet, coco: list[str], tmp_path: Path
) -> None:
    out = train_net("train.max_iter=1", *coco)
    names = ("config.yaml", "categories.json", "model_final.pth", "last_checkpoint")
    before = [(out / name).read_bytes() for name in names]
    train_net(coco[1], "train.log_period=7", eval_only=True)
    assert [(out / name).read_bytes() for name in names] == before
    assert "log_period: 7" in (out / "inference" / "config.yaml").read_text()
    evaluated = json.loads((out / "inference" / "weights.json").read_text())
    assert evaluated == {"fingerprint": fingerprint(load(out / "model_final.pth")["model"])}


def with_classes(coco: list[str], *names: str) -> list[str]:
    """Return the options of a custom dataset with other classes, ids from 5 on."""
    file = Path(coco[0].partition("=")[2])
    data = json.loads(file.read_text())
    data["categories"] = [{"id": 5 + i, "name": name} for i, name in enumerate(names)]
    data["annotations"][0]["category_id"] = 5
    other = file.with_name("-".join(names) + ".json")
    other.write_text(json.dumps(data))
    return [f"data.train={other}", f"data.val={other}"]


@pytest.mark.parametrize("mode", ["resume", "eval_only"])
def test_classes_of_weights_and_data(
    train_net: TrainNet, coco: list[str], capsys: pytest.CaptureFixture, mode: str, tmp_path: Path
) -> None:
    out = train_net("train.max_iter=1", *coco)
    swapped, renamed = with_classes(coco, "nut", "cell"), with_classes(coco, "cell", "bolt")
    again: dict[str, Any] = {mode: True}
    message = refusal(capsys, train_net, "train.max_iter=1", *swapped, **again)
    assert "in another order: 'cell' is now 'nut', 'nut' is now 'cell'" in message
    message = refusal(capsys, train_net, "train.max_iter=1", *renamed, **again)
    assert "Only in the weights: 'nut'; only in the data: 'bolt'" in message
    # A config of a run repeats its data without data.* keys.
    text = (out / "config.yaml").read_text().replace("a.json", "nut-cell.json")
    (tmp_path / "other.yaml").write_text(text)
    assert "another order" in refusal(capsys, train_net, file=tmp_path / "other.yaml", **again)
    train_net("train.max_iter=1", *with_classes(coco, "cell", "nut"), **again)


def test_fine_tuning_may_have_other_classes(
    train_net: TrainNet, coco: list[str], capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    start = train_net("train.max_iter=1", *coco) / "model_final.pth"
    options = ("train.max_iter=1", f"train.init_checkpoint={start}")
    for names, warned in ((("nut", "cell"), True), (("cell", "bolt"), False)):
        other = tmp_path / names[0]
        train_net(*options, f"train.output_dir={other}", *with_classes(coco, *names))
        assert ("in another order" in capsys.readouterr().out) == warned
        assert json.loads((other / "categories.json").read_text())["categories"][0]["id"] == 5


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("model_0000009.pth", "names model_0000009.pth, which does not exist"),
        ("a" * 5000, "names a{77}[.]{3}, which does not exist"),
        ("../../model.pth", "names ../../model.pth, which does not exist"),
        ("", "is empty or damaged"),
        ("\0\0\0", "is empty or damaged"),
        (None, "does not exist"),
    ],
)
def test_marks_that_lead_nowhere(tmp_path: Path, mark: str | None, message: str) -> None:
    assert find_last_checkpoint(str(tmp_path)) == find_last_checkpoint(f"{tmp_path}/none") == ""
    (tmp_path / "model_0000001.pth").touch()
    if mark is not None:
        (tmp_path / "last_checkpoint").write_text(mark)
    with pytest.raises(InputError, match=f"{message}; .* has model_0000001.pth: write the name"):
        find_last_checkpoint(str(tmp_path))
    (tmp_path / "model_0000001.pth").unlink()
    if mark is not None:
        with pytest.raises(InputError, match=f"{message}; .* has no checkpoint: start a new run"):
            find_last_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "mark", ["model_final.pth", "/other/machine/model_final.pth\n", r"C:\out\model_final.pth"]
)
def test_the_mark_of_a_folder_that_was_moved(tmp_path: Path, mark: str) -> None:
    (tmp_path / "model_final.pth").touch()
    (tmp_path / "last_checkpoint").write_text(mark)
    assert find_last_checkpoint(str(tmp_path)) == str(tmp_path / "model_final.pth")


def test_a_mark_of_another_folder(tmp_path: Path) -> None:
    (tmp_path / "model_final.pth").touch()
    (tmp_path / "last_checkpoint").write_text("../first/model_final.pth")
    with pytest.raises(InputError, match=r"first/model_final[.]pth, which is in another folder; "):
        find_last_checkpoint(str(tmp_path))


def test_weights_alone_are_not_resumed(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    out = train_net("train.max_iter=1")
    (out / "last_checkpoint").write_text("model_best.pth")
    message = refusal(capsys, train_net, "train.mix_schedules=True", resume=True)
    assert f"Cannot resume {out / 'model_best.pth'}: it has weights only." in message


def test_nothing_to_set_aside(tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    set_aside(str(tmp_path), RUN_FILES)
    assert os.listdir(tmp_path) == ["log.txt"]


@pytest.mark.parametrize("path", ["/proc/brloss", "{config}/out", "/dev/null", "{long}"])
def test_folders_that_cannot_be_written(
    train_net: TrainNet, config: Path, capsys: pytest.CaptureFixture, path: str
) -> None:
    path = path.format(config=config, long=config.parent / ("a" * 300))
    message = refusal(capsys, train_net, f"train.output_dir={path}")
    assert f"error: train.output_dir={path}: " in message and "Traceback" not in message


def test_an_end_that_was_cut_off_is_made_up_for(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    options = ("train.max_iter=3", "train.log_period=2")
    with pytest.raises(RuntimeError, match="no evaluation"):
        train_net(*options, "dataloader.evaluator.fail_from=0")
    out = train_net(*options, resume=True)
    assert [line["iteration"] for line in lines(out) if "bbox/AP" in line] == [3]
    assert [line["iteration"] for line in lines(out) if "total_loss" in line] == [1, 2]
    assert load(out / "model_best.pth")["value"] == 100
    final = (out / "model_final.pth").stat().st_mtime_ns
    train_net(*options, resume=True)
    assert (out / "model_final.pth").stat().st_mtime_ns == final, "done once"
    # Killed between the periodic checkpoint and the final one.
    whole = load(out / "model_final.pth")
    (out / "model_final.pth").rename(out / "model_0000002.pth")
    (out / "last_checkpoint").write_text("model_0000002.pth")
    train_net(*options, "dataloader.evaluator=null", resume=True)
    again = load(out / "model_final.pth")
    assert torch.equal(again["model"][WEIGHT], whole["model"][WEIGHT])
    train_net(*options, "train.max_iter=4", "train.mix_schedules=True", resume=True)
    assert load(out / "model_final.pth")["iteration"] == 3, "its data go on where they were"


def test_an_analysis_is_of_the_weights_before(train_net: TrainNet, config: Path) -> None:
    out = config.parent / "out"
    stop(train_net)
    train_net(resume=True)
    for name in ("calibration.json", "analysis"):
        (out / name).mkdir()
    train_net(resume=True)
    assert not (out / "earlier_1").exists(), "nothing was trained"
    train_net("train.max_iter=5", "train.mix_schedules=True", resume=True)
    assert sorted(os.listdir(out / "earlier_1")) == ["analysis", "calibration.json"]


def test_other_data_and_seeds_are_named(
    train_net: TrainNet, coco: list[str], capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    constant = ("lr_multiplier.end_value=1.0", "train.max_iter=1")
    train_net(*constant, *coco, "train.seed=3")
    moved = [option.replace("a.json", "b.json") for option in coco]
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    capsys.readouterr()
    train_net(*constant, *moved, "train.seed=3", resume=True)
    assert "not resumed as it began" not in capsys.readouterr().out, "the same, moved"
    data = json.loads((tmp_path / "b.json").read_text())
    data["annotations"][0]["bbox"] = [1, 1, 3, 3]
    (tmp_path / "b.json").write_text(json.dumps(data))
    options = ("lr_multiplier.end_value=1.0", "train.max_iter=2", *moved)
    out = train_net(*options, "train.seed=4", resume=True)
    warning = next(x for x in capsys.readouterr().out.split("\n") if "not resumed as it" in x)
    both = [f"dataloader.{x}: was {tmp_path}/a.json, now {tmp_path}/b.json" for x in SPLITS]
    assert [*both, "train.seed=4 is ignored, its seed is 3."] == warning.split("began: ")[1].split(
        "; "
    )
    assert load(out / "model_final.pth")["trainer"]["hooks"]["RunState"]["seed"] == 3


def test_a_config_that_differs_is_named(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    out = train_net("train.max_iter=1")
    free = ("train.log_period=3", "train.checkpointer.period=3", "dataloader.train.num_workers=1")
    capsys.readouterr()
    train_net("train.max_iter=1", *free, file=out / "config.yaml", resume=True)
    assert "not resumed as it began" not in capsys.readouterr().out
    changed = ("model.dropout=0.5", "model.nan_rank=7", "train.ema.enabled=True")
    more = ("train.clip_grad_norm=5", "train.amp.dtype=bfloat16", "train.best_mode=min")
    evaluator = "dataloader.evaluator=null"
    train_net("train.max_iter=1", *changed, *more, evaluator, resume=True)
    warning = next(x for x in capsys.readouterr().out.split("\n") if "not resumed as it" in x)
    assert warning.split("began: ")[1].split("; ") == [
        "model.dropout: was null, now 0.5",
        "model.nan_rank: was null, now 7",
        "dataloader.evaluator: was ToyEvaluator, now null",
        "train.amp.dtype: was float16, now bfloat16",
        "train.clip_grad_norm: was 0.0, now 5",
        "2 more keys of the config.",
    ]


def test_a_state_that_does_not_fit_names_what_differs(
    train_net: TrainNet, capsys: pytest.CaptureFixture
) -> None:
    train_net("train.max_iter=1")
    more = ("train.max_iter=2", "train.mix_schedules=True", "model.dropout=0.5")
    groups = "optimizer.params.overrides={bias: {weight_decay: 0.1}}"
    message = refusal(capsys, train_net, *more, groups, resume=True)
    assert message.endswith("not as the run began: model.dropout: was null, now 0.5.\n")


def test_a_finished_run_keeps_its_config(train_net: TrainNet) -> None:
    out = train_net("train.max_iter=1")
    before = (out / "config.yaml").read_bytes()
    train_net("train.max_iter=1", "train.log_period=5", resume=True)
    assert (out / "config.yaml").read_bytes() == before


def test_weights_of_the_own_folder_keep_their_name(train_net: TrainNet) -> None:
    out = train_net("train.max_iter=1")
    train_net("train.max_iter=1", f"train.init_checkpoint={out}/model_final.pth")
    assert f"init_checkpoint: {out}/earlier_1/model_final.pth" in (out / "config.yaml").read_text()


def test_more_threads_than_cores(train_net: TrainNet, capsys: pytest.CaptureFixture) -> None:
    before = torch.get_num_threads()
    train_net("train.max_iter=1", "train.num_threads=100000")
    assert "train.num_threads=100000: this machine has" in capsys.readouterr().out
    assert torch.get_num_threads() <= (os.cpu_count() or 1)
    torch.set_num_threads(before)


@pytest.mark.parametrize("mode", ["resume", "eval_only"])
def test_weights_know_their_classes(
    train_net: TrainNet, coco: list[str], capsys: pytest.CaptureFixture, mode: str
) -> None:
    """Those of registered datasets, and copies, have no categories.json next to them."""
    out = train_net("train.max_iter=1", *coco)
    (out / "categories.json").unlink()
    options = ("train.max_iter=2", "train.mix_schedules=True")
    again: dict[str, Any] = {mode: True}
    for name in ("model_final", "model_best"):
        if mode == "eval_only":
            again["eval_only"], options = True, (f"train.init_checkpoint={out}/{name}.pth",)
        swapped = with_classes(coco, "nut", "cell")
        message = refusal(capsys, train_net, *swapped, *options, **again)
        assert f"{name if mode == 'eval_only' else 'model_final'}.pth in another order" in message
        assert "'cell' is now 'nut', 'nut' is now 'cell'" in message
