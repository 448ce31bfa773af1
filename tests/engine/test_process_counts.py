"""The same images in one, two and four processes take the same steps."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers import steps
from tests.helpers.programs import ROOT, Programs

LEAVES = ["atss_R_18_FPN_brs", "faster_rcnn_R_18_FPN_rs"]
OF_AUXILIARY = re.compile("_(dense|roi)_layer")
CO_DETR = ROOT / "projects/co_detr/configs/quick/co_deformable_detr_R_18_brs_300it.py"


def runs(
    programs: Programs,
    leaf: Path,
    pool: str,
    number: int,
    folder: Path,
    train: Callable[..., None] = steps.train,
) -> list[dict]:
    """Losses, gradients and weights of one, two and four processes."""
    for processes in (1, 2, 4):
        arguments = (str(leaf), pool, number, str(folder))
        programs.spawn(train, *arguments, processes=processes, folder=folder)
    return [torch.load(folder / f"{size}.pt", weights_only=True) for size in (1, 2, 4)]


def assert_equal(one: dict, *others: dict) -> None:
    assert all(gradient.isfinite().all() for gradient in one["gradients"].values())
    for other in others:
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "number", [pytest.param(1, id="one step"), pytest.param(10, marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize("pool", ["local", "global"])
@pytest.mark.parametrize("leaf", LEAVES)
def test_detectors(programs: Programs, leaf: str, pool: str, number: int, tmp_path: Path) -> None:
    config = ROOT / "configs/quick" / f"{leaf}_300it.py"
    assert_equal(*runs(programs, config, pool, number, tmp_path))


@pytest.mark.nightly
@pytest.mark.parametrize("pool", ["local", "global"])
def test_co_detr(programs: Programs, pool: str, tmp_path: Path) -> None:
    """With queries of auxiliary heads whose number and rows are those of their image alone."""
    train = steps.train_with_own_queries
    one, *others = runs(programs, CO_DETR, pool, 10, tmp_path, train)
    assert len(one["losses"]) == 10
    auxiliary = [x for name, x in one["losses"][0].items() if OF_AUXILIARY.search(name)]
    assert len(auxiliary) > 10 and all(loss > 0 for loss in auxiliary)
    assert_equal(one, *others)


@pytest.mark.nightly
@pytest.mark.parametrize("pool", ["local", "global"])
def test_co_detr_as_published(programs: Programs, pool: str, tmp_path: Path) -> None:
    """All losses but those of queries whose number the images of a process share."""
    own = [
        {name: loss for name, loss in run["losses"][0].items() if not OF_AUXILIARY.search(name)}
        for run in runs(programs, CO_DETR, pool, 1, tmp_path)
    ]
    assert len(own[0]) > 20
    for other in own[1:]:
        torch.testing.assert_close(other, own[0], rtol=1e-5, atol=1e-8)
