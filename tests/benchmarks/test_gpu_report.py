"""The commands of the GPU report; its measurements need a GPU."""

import sys

import pytest

import gpu_report
from gpu_report import FAMILIES, LOSSES, PUBLISHED, ROOT, Step, run, steps
from support.contenders import CONTENDERS


def test_it_names_what_exists(tmp_path):
    assert set(LOSSES + PUBLISHED) == set(CONTENDERS)
    for pattern, losses in FAMILIES.values():
        for loss in losses:
            assert (ROOT / pattern.format(loss)).exists()
    for step in steps(tmp_path, sys.executable, 25):
        files = [x for x in step.command if x.endswith(".py")]
        assert all((ROOT / name).exists() for name in files), step.command


def test_steps_share_the_time(tmp_path):
    assert sum(step.limit for step in steps(tmp_path, sys.executable, 10)) < 2 * 600


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


def test_command_line(capsys, monkeypatch):
    assert gpu_report.main(["--list"]) == 0
    assert "train_net.py" in capsys.readouterr().out
    monkeypatch.setattr(gpu_report.torch.cuda, "is_available", lambda: False)
    assert gpu_report.main([]) == 1
    assert "no GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_report.main(["--steps", "nothing"])
