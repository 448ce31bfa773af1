"""The log: what reaches a terminal, what log.txt, and faults of either."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brloss_d2.engine.hooks.evaluation import results_table
from brloss_d2.engine.logs import set_up_logging

OWN = logging.getLogger("brloss_d2.engine.train")


@pytest.fixture
def log(tmp_path: Path, train_net: object) -> Path:
    """Path of log.txt in a folder that does not exist; `train_net` removes the handlers."""
    return tmp_path / "out" / "log.txt"


def test_a_terminal_shows_what_a_user_decides_by(log: Path, capsys: pytest.CaptureFixture) -> None:
    set_up_logging(str(log.parent))
    OWN.debug("the whole config")
    OWN.info("Dataset")
    OWN.warning("no TensorBoard")
    logging.getLogger("detectron2.data.build").info("Serializing")
    logging.getLogger("detectron2.data.datasets.coco").warning("ids will be mapped")
    logging.getLogger("detectron2.utils.events").info("eta: 0:01")
    logging.getLogger("fvcore.common.checkpoint").warning("Skip loading parameter")
    lines = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    skipped = "WARNING: Skip loading parameter"
    assert lines == ["Dataset", "WARNING: no TensorBoard", "eta: 0:01", skipped]
    assert len(log.read_text().splitlines()) == 7


def test_nothing_is_printed_raw(log: Path, capsys: pytest.CaptureFixture) -> None:
    set_up_logging(str(log.parent))
    OWN.info("class \x1b[2Jnut\rbolt:\n%s", "second line")
    logging.getLogger("detectron2").error("\x1b]0;title\x07")
    assert "\\x1b[2Jnut\\rbolt:\nsecond line" in capsys.readouterr().out
    assert "\x1b" not in log.read_text() and "\x07" not in log.read_text()


def test_long_messages_are_cut_on_the_terminal(log: Path, capsys: pytest.CaptureFixture) -> None:
    set_up_logging(str(log.parent))
    OWN.info("\n".join(map(str, range(1000))))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 40
    assert lines[-2:] == ["... (961 more lines in log.txt)", "999"]
    assert len(log.read_text().splitlines()) == 1000


def test_a_reader_that_is_gone_does_not_end_a_run(
    log: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Pipe())
    set_up_logging(str(log.parent))
    OWN.info("unread")
    OWN.info("unread, too")
    error = capsys.readouterr().err
    assert error.count("Broken pipe") == 1 and "Traceback" not in error
    assert log.read_text().count("unread") == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_told_once(
    log: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_logging(str(log.parent))
    (file,) = [h for h in logging.getLogger("brloss_d2").handlers if hasattr(h, "baseFilename")]
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(file, "stream", full)
        OWN.info("first")
        OWN.info("second")
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    out, error = capsys.readouterr()
    assert "first" in out and "second" in out
    assert error.count("No space left on device") == 1 and "Traceback" not in error


def test_results_fit_a_terminal() -> None:
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "oLRP", "oLRP_Loc", "oLRP_FP", "oLRP_FN")
    metrics = {**dict.fromkeys(names, 98.41), "AP-circle": 1.0, "APr": float("nan")}
    table = results_table({"bbox": metrics, "segm": {"AP": 5.0}, "ema": {"bbox": metrics}})
    lines = table.splitlines()
    assert lines[0].split() == ["bbox", "segm", "ema", "bbox"]
    assert lines[2].split() == ["AP", "98.41", "5.00", "98.41"]
    assert lines[-1].split() == ["APr", "-", "-", "-"]
    assert max(map(len, lines)) <= 80 and "circle" not in table


def test_a_run_starts_with_few_lines(
    train_net: Callable[..., Path], coco: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also with many classes; log.txt has all of them, the config and the environment."""
    file = tmp_path / "a.json"
    content = json.loads(file.read_text())
    content["categories"] += [{"id": i, "name": f"\x1b[7mclass {i}"} for i in range(3, 103)]
    file.write_text(json.dumps(content))
    out = train_net(*coco, "dataloader.train.total_batch_size=1")
    start = capsys.readouterr().out.partition("iter: ")[0].splitlines()
    assert 5 < len(start) <= 15 and "\x1b" not in "".join(start)
    assert all(len(line) <= 80 for line in start if not line.startswith("["))
    log = (out / "log.txt").read_text()
    assert all(text in log for text in ("Effective config", "Command line", "class 102", "Pillow"))
