"""brloss-env: what it reports, and that it notices what is wrong."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import brloss_d2
from brloss_d2 import ap_loss
from brloss_d2.cli import env, export, predict


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert env.main(["--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines() if line)
    assert lines["torch"] == torch.__version__.partition("+")[0]
    assert brloss_d2.__version__ in lines["brloss_d2"]
    assert lines["ap_loss"].startswith("on cpu: value within ")
    assert printed.endswith("\nNothing is wrong.\n")
    for what in ("detectron2 from", "evaluator", "losses by", "rank_sort_loss", "CPU", "GPU"):
        assert f"\n{what} " in printed


def test_a_wrong_gradient_is_noticed(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scale = 1.1 if logits.dtype == torch.float32 else 1.0
        return {"loss": sum(ap_loss(logits, labels).values()) * scale}

    monkeypatch.setattr(brloss_d2, "ap_loss", wrong)
    assert env.main(["--device", "cpu"]) == 1
    printed = capsys.readouterr().out
    assert "value within 1e-01, gradient within 1e-01  <-- wrong" in printed
    assert "1 of " in printed.splitlines()[-1]


def test_a_missing_package_is_told(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    known = env._version
    missing = ("fvcore", "hotcoco")
    monkeypatch.setattr(env, "_version", lambda name: "" if name in missing else known(name))
    assert env.main(["--device", "cpu"]) == 1
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fvcore", "missing", "<--", "wrong"] in words and ["evaluator", "pycocotools"] in words


def test_a_missing_device_is_told_as_it_was_named(
    monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(image)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = ["--config-file", "a.py", "--weights", "a.pth"]
    programs = [
        (env.main, []),
        (predict.main, [*model, "--input", image]),
        (export.main, [*model, "--sample", image, "--output", "a.pt"]),
    ]
    for program, arguments in programs:
        for device, what in (("cuda", "but torch finds no GPU"), ("gpu", "expected auto, cpu or")):
            assert program([*arguments, "--device", device]) == 1
            assert what in (message := capsys.readouterr().err)
            assert message.startswith(f"error: --device is '{device}'")
