"""tools/list_configs.py: the table, filters, files."""

from pathlib import Path

import pytest

from tools import list_configs


def test_table(capsys: pytest.CaptureFixture) -> None:
    assert list_configs.main(["--loss", "brs", "--data", "lvis_v1"]) == 0
    _, _, row = capsys.readouterr().out.strip().splitlines()
    assert row.split()[:8] == [
        *("lvis_v1/mask_rcnn_R_50_FPN_brs_1x", "lvis_v1", "mask_rcnn", "R_50", "brs", "1x"),
        *("-", "25.8"),
    ]


def test_files(capsys: pytest.CaptureFixture) -> None:
    assert list_configs.main(["--detector", "atss", "--backbone", "r_50", "--files"]) == 0
    files = capsys.readouterr().out.split()
    assert len(files) == 5 and all(Path(file).is_file() for file in files)


def test_no_such_loss(capsys: pytest.CaptureFixture) -> None:
    assert list_configs.main(["--loss", "brz"]) == 1
    assert capsys.readouterr().err.startswith("error: No config with loss 'brz'")
