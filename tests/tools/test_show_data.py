"""tools/show_data.py, from a folder to the picture."""

import os

from PIL import Image

from tests.data.test_folders import YAML, image, text
from tools import show_data

CONFIG = ["--config-file", "quick/atss_R_18_FPN_rs_300it"]


def test_a_folder_is_shown(tmp_path, capsys):
    for name in "abc":
        image(tmp_path / f"set/images/{name}.jpg")
        text(tmp_path / f"set/labels/{name}.txt", "1 0.5 0.5 0.02 0.04")
    text(tmp_path / "set/data.yaml", YAML)
    picture = tmp_path / "data.png"
    opts = [f"data.train={tmp_path}/set", "data.short_side=64"]
    assert show_data.main([*CONFIG, "--output", str(picture), "--images", "2", *opts]) == 0
    out = capsys.readouterr().out
    assert "Note: data.train: recognized as YOLO.\n" in out
    assert "Note: 100% of the objects are smaller than the smallest anchor (32 pixels)" in out
    assert out.endswith(f"{picture}\n")
    with Image.open(picture) as shown:
        assert min(shown.size) > 300
    assert sorted(os.listdir(tmp_path)) == ["data.png", "set"]


def test_mistakes_are_told(tmp_path, capsys):
    picture = str(tmp_path / "gone/data.png")
    assert show_data.main([*CONFIG, "--output", picture, "data.train=x"]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert show_data.main([*CONFIG, "--output", str(tmp_path / "a.png"), "data.train=x"]) == 1
    assert "this file does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
