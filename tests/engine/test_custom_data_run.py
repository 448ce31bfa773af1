"""Output of a training on a custom dataset."""

from collections.abc import Callable
from pathlib import Path

from brloss_d2.data import read_categories


def test_names_of_the_classes(train_net: Callable[..., Path], coco: list[str]) -> None:
    out = train_net("train.max_iter=1", *coco)
    assert (out / "model_final.pth").exists()
    assert read_categories(str(out / "categories.json")) == {1: "cell", 2: "nut"}


def test_none_without_custom_data(train_net: Callable[..., Path]) -> None:
    assert not (train_net("train.max_iter=1") / "categories.json").exists()
