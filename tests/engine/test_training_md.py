"""The commands and keys of docs/training.md are those of the package."""

import re
import shlex
from pathlib import Path

import pytest

from brloss_d2 import engine
from brloss_d2.cli import train

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    .*?train_net\.py (.*)$", TEXT, re.MULTILINE)
CONFIG = "configs/coco/faster_rcnn_R_50_FPN_brs_1x.py"


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 15 and CONFIG in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    monkeypatch.setattr(engine, "run", lambda program, args, check: parsed.append(args))
    assert train.main(shlex.split(command)) == 0
    args = parsed.pop()
    assert args.config_file == "CONFIG"
    assert not any(text.startswith("-") for text in args.opts)
    engine.load_config(str(ROOT / CONFIG), args.opts)


def test_every_key_is_explained() -> None:
    assert engine.train_keys() in TEXT, (
        "bring the table up to date with what this prints: "
        "python -c 'from brloss_d2.engine import train_keys; print(train_keys())'"
    )
