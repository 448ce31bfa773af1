"""tools/list_configs.py: the table, filters, files, cards, documents."""

import re
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

from brloss_d2.model_zoo import config_file, describe, documents, get_config
from tools import list_configs


def test_table(capsys: pytest.CaptureFixture) -> None:
    assert list_configs.main(["--loss", "brs", "--data", "lvis_v1"]) == 0
    _, _, row = capsys.readouterr().out.strip().splitlines()
    assert row.split() == ["lvis_v1/mask_rcnn_R_50_FPN_brs_1x", "-", "25.8"]
    assert list_configs.main([]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_files(capsys: pytest.CaptureFixture) -> None:
    assert (
        list_configs.main(["--detector", "atss", "--backbone", "r_50", "--data", "coco", "--files"])
        == 0
    )
    files = capsys.readouterr().out.split()
    folder = Path(config_file("coco/atss_R_50_FPN_brs_1x")).parent
    assert sorted(files) == sorted(map(str, folder.glob("atss_R_50_*.py"))) != []


def test_cards(capsys: pytest.CaptureFixture) -> None:
    names = ["coco/atss_R_50_FPN_brs_1x", "quick/paa_R_18_FPN_focal_300it"]
    assert list_configs.main(names) == 0
    text = capsys.readouterr().out
    assert text == "\n\n".join(describe(name) for name in names) + "\n"
    assert list_configs.main([*names, "--files"]) == 0
    assert capsys.readouterr().out.split() == [config_file(name) for name in names]
    assert list_configs.main(["atss_R_50_FPN_brz_1x"]) == 1
    error = capsys.readouterr().err
    assert "Did you mean coco/atss_R_50_FPN_brs_1x" in error and "list_configs()" not in error


def test_parts_of_names(capsys: pytest.CaptureFixture) -> None:
    assert list_configs.main(["ATSS", "brs"]) == 0
    names = [row.split()[0] for row in capsys.readouterr().out.splitlines()[2:]]
    assert len(names) > 1 and all("atss" in name and "brs" in name for name in names)
    assert list_configs.main(["atss_R_50_FPN_brs_1x"]) == 0
    assert capsys.readouterr().out == describe("coco/atss_R_50_FPN_brs_1x") + "\n"


def test_paths(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = "quick/paa_R_18_FPN_focal_300it"
    assert list_configs.main([config_file(name)]) == 0
    assert capsys.readouterr().out == describe(name) + "\n"
    own = tmp_path / "own.yaml"
    LazyConfig.save(get_config(name), str(own))
    assert list_configs.main([str(own)]) == 0
    assert f"brloss-train --config {own}" in re.sub(r"\s+", " ", capsys.readouterr().out)
    own.write_text("train: {max_iter: 3}")
    assert list_configs.main([str(own)]) == 1
    assert "model is missing" in capsys.readouterr().err


def test_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- zoo: cityscapes/*_rs -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(documents, "documents", lambda: [page])
    assert list_configs.main(["--write-docs"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    first, begin, _, header, _, row, _, end, last = page.read_text().splitlines()
    assert (first, begin, end, last) == (
        "before",
        "<!-- zoo: cityscapes/*_rs -->",
        "<!-- end -->",
        "after",
    )
    assert header == "| config | epochs | score | #H | box AP | mask AP | s | source |"
    assert row.startswith(
        "| `cityscapes/mask_rcnn_R_50_FPN_rs` | 12 (8), 800 to 1024 | 0.40 | (3) | 43.7 |"
    )


def test_no_such_loss(capsys: pytest.CaptureFixture) -> None:
    assert list_configs.main(["--loss", "brz"]) == 1
    assert capsys.readouterr().err.startswith("error: No config with loss 'brz'")
