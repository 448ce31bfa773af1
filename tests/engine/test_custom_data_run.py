"""Output of a training on a custom dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest

from brloss_d2.data import read_categories


def test_names_of_the_classes(train_net: Callable[..., Path], coco: list[str]) -> None:
    out = train_net("train.max_iter=1", *coco)
    assert (out / "model_final.pth").exists()
    assert read_categories(str(out / "categories.json")) == {1: "cell", 2: "nut"}


def test_none_without_custom_data(train_net: Callable[..., Path]) -> None:
    assert not (train_net("train.max_iter=1") / "categories.json").exists()


def test_damaged_images_are_found_before_anything_is_written(
    train_net: Callable[..., Path], coco: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    with pytest.raises(SystemExit):
        train_net("train.max_iter=1", *coco)
    assert "1 of the 1 images of data.val cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
