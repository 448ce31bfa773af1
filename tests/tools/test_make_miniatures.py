import pytest

from tools.make_miniatures import main

pytest.importorskip("cityscapesscripts")


def test_writes_and_says_how_to_use_them(tmp_path, capsys):
    folder = tmp_path / "miniatures"
    arguments = ["--output", str(folder), "--train", "2", "--val", "2", "--size", "64", "80"]
    assert main(arguments) == 0
    assert (folder / "coco" / "annotations" / "instances_val2017.json").is_file()
    assert f"export DETECTRON2_DATASETS={folder}" in capsys.readouterr().out
    assert main(arguments) == 1, "a second time the folder is in use"
    assert capsys.readouterr().err.startswith("error: ")
