"""The commands of docs/training.md: every key and value in them is one."""

import re
import shlex
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from brloss_d2.engine import load_config

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    .*?train_net\.py (.*)$", TEXT, re.MULTILINE)
CONFIG = "configs/coco/faster_rcnn_R_50_FPN_brs_1x.py"


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 15 and CONFIG in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    args = default_argument_parser().parse_args(shlex.split(command))
    assert args.config_file == "CONFIG"
    assert not any(text.startswith("-") for text in args.opts)
    load_config(str(ROOT / CONFIG), args.opts)
