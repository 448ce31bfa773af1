import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from brloss_d2.utils.config_nodes import (
    dataset_of,
    learns_masks,
    names_of,
    target_of,
    walk_nodes,
)


def test_nodes_are_found_once_and_references_not_followed() -> None:
    cfg = OmegaConf.create(
        {"name": "a", "list": [{"name": "b"}, 3], "other": "${list}", "missing": "???"}
    )
    assert [node.name for node in walk_nodes(cfg)] == ["a", "b"]
    assert list(walk_nodes(3)) == []


def test_targets() -> None:
    assert target_of(L(nn.Linear)(in_features=1)) is nn.Linear
    assert target_of(OmegaConf.create({"_target_": "torch.nn.Linear"})) is nn.Linear
    assert target_of(OmegaConf.create({"a": 1})) is None
    assert target_of(None) is None


def test_datasets_and_their_names() -> None:
    cfg = OmegaConf.create(
        {"dataloader": {"train": {"dataset": {"names": ["a", "b"]}}, "test": {"dataset": "c"}}}
    )
    assert names_of(dataset_of(cfg, "train")) == ["a", "b"]
    assert names_of(dataset_of(cfg, "test")) == names_of(dataset_of(cfg, "val")) == []
    assert names_of(OmegaConf.create({"names": "a"})) == ["a"]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, False),
        ({"mapper": {"use_instance_mask": False}}, False),
        ({"mapper": None}, False),
        ({"mapper": {"use_instance_mask": True}}, True),
    ],
)
def test_whether_masks_are_read(train: dict, expected: bool) -> None:
    assert learns_masks(OmegaConf.create({"dataloader": {"train": train}})) is expected
    assert learns_masks(OmegaConf.create({})) is False
