"""What the programs share: names of configs, and errors of one line."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from brloss_d2.cli.common import find_config, fraction, run_program
from brloss_d2.errors import InputError


def test_a_config_is_a_file_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_config("coco/atss_R_50_FPN_brs_1x")
    assert Path(found).is_file() and found.endswith("configs/coco/atss_R_50_FPN_brs_1x.py")
    assert find_config("coco/atss_R_50_FPN_brs_1x.py") == found
    file = tmp_path / "coco" / "atss_R_50_FPN_brs_1x.py"
    file.parent.mkdir()
    file.touch()
    monkeypatch.chdir(tmp_path)
    assert find_config("coco/atss_R_50_FPN_brs_1x.py") == "coco/atss_R_50_FPN_brs_1x.py"
    assert find_config(str(file)) == str(file)


def test_a_missing_config_is_told_with_similar_names() -> None:
    with pytest.raises(InputError, match=r"file missing: atss\.py\. There is no config 'atss'"):
        find_config("atss.py")
    with pytest.raises(InputError, match=r"Did you mean coco/atss_R_50_FPN_brs_1x"):
        find_config("atss_R_50_FPN_brs_1x")


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise InputError(f"{args.name} is missing")

    assert run_program(fail, argparse.Namespace(name="a.pth")) == 1
    assert capsys.readouterr().err == "error: a.pth is missing\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = (
        "import argparse\n"
        "from brloss_d2.cli.common import run_program\n"
        "def program(args):\n"
        "    for number in range(100_000):\n"
        "        print(number)\n"
        "    return 0\n"
        "raise SystemExit(run_program(program, argparse.Namespace()))\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_fractions_are_neither_none_nor_all() -> None:
    assert fraction("0.25") == 0.25
    for text in ("0", "1", "-0.5", "2", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"between 0 and 1, got {text}"):
            fraction(text)
