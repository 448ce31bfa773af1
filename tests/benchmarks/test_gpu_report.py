"""The commands of the GPU report; its measurements need a GPU."""

import csv
import sys

import pytest

import gpu_report
from gpu_report import (
    FAMILIES,
    LOSSES,
    MORE_FAMILIES,
    PUBLISHED,
    ROOT,
    Step,
    in_quick_form,
    run,
    steps,
)
from support.contenders import CONTENDERS
from tests.helpers.programs import Programs


def test_it_names_what_exists(tmp_path):
    assert set(LOSSES + PUBLISHED) == set(CONTENDERS)
    for pattern, losses in (FAMILIES | MORE_FAMILIES).values():
        for loss in losses:
            assert (ROOT / pattern.format(loss)).exists()
    for step in steps(tmp_path, sys.executable, 25):
        for command in (step.command, in_quick_form(step).command):
            files = [x for x in command if x.endswith(".py")]
            assert all((ROOT / name).exists() for name in files), command


def test_what_matters_most_has_all_of_the_time(tmp_path):
    """Then come the tests; all that follows takes what is left."""
    names, limits = zip(*((s.name, s.limit) for s in steps(tmp_path, "python", 10)), strict=True)
    most = names.index("tests")
    assert sum(limits[:most]) == pytest.approx(600, abs=1)
    assert names[:3] == ("kernels", "losses_triton", "losses_torch")
    assert names[3:most:2] == ("detectors_faster", "detectors_atss", "detectors_co_detr", "shapes")
    assert names[most - 1] == "train_brs"


def test_a_step_that_succeeded_is_not_repeated(tmp_path):
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x')"
    count = tmp_path / "count"
    count.write_text("")
    step = Step("count", [sys.executable, "-c", code + "; print('3 passed')", str(count)], 60)
    assert run(step, tmp_path) == run(step, tmp_path)
    assert count.read_text() == "x"
    assert run(step, tmp_path).startswith("ok, 3 passed")


def test_failures_and_stops_are_told_and_tried_again(tmp_path):
    fails = Step("fails", [sys.executable, "-c", "print('why'); raise SystemExit(3)"], 60)
    for _ in range(2):
        assert run(fails, tmp_path).startswith("FAILED, exit status 3, why")
    slow = Step("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert run(slow, tmp_path) == "stopped after 0 s"


DRY = ("losses_torch", "detectors_faster_amp", "shapes", "train_brs")


def test_dry_run(programs: Programs, tmp_path):
    """On the CPU; what it runs of losses and detectors, the pretend device runs, too."""
    for step in steps(tmp_path, sys.executable, 9):
        if step.name in DRY:
            words = in_quick_form(step).command[1:]
            words = [str(ROOT / x) if (ROOT / x).exists() else x for x in words]
            programs.run(words, tmp_path)
    with (tmp_path / "losses_torch.csv").open() as file:
        assert {row["loss"] for row in csv.DictReader(file)} == {"focal", "rs"}
    with (tmp_path / "detectors.csv").open() as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert names[1] == "faster_rcnn_R_18_FPN_rs_300it, bfloat16"


def test_a_row_is_written_after_each_step(tmp_path, monkeypatch, capsys):
    seen = []

    def fake(step, output):
        seen.append((tmp_path / "report.csv").read_text().count("\n"))
        return f"ok, result of {step.name}"

    monkeypatch.setattr(gpu_report, "run", fake)
    assert gpu_report.main(["--dry-run", "--output", str(tmp_path)]) == 0
    assert seen == list(range(len(steps(tmp_path, "python", 9))))
    assert "result of train_brs" in (tmp_path / "report.csv").read_text()
    assert "result of shapes" in capsys.readouterr().out


@pytest.mark.parametrize("result", ["FAILED, exit status 3", "stopped after 9 s"])
def test_a_step_without_success_shows_in_the_status(tmp_path, monkeypatch, result):
    results = iter([result, "ok"])
    monkeypatch.setattr(gpu_report, "run", lambda step, output: next(results))
    arguments = ["--dry-run", "--output", str(tmp_path), "--steps", "losses_torch", "shapes"]
    assert gpu_report.main(arguments) == 1


def test_command_line(capsys, monkeypatch):
    assert gpu_report.main(["--list"]) == 0
    assert "train_net.py" in capsys.readouterr().out
    monkeypatch.setattr(gpu_report.torch.cuda, "is_available", lambda: False)
    assert gpu_report.main([]) == 1
    assert "no GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_report.main(["--steps", "nothing"])
