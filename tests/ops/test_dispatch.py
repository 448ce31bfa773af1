"""Which back-end computes, and that one asked for by name is used or refused."""

import pytest
import torch

from brloss_d2.losses import rank_sort_loss
from brloss_d2.ops import (
    cells,
    chosen_backend,
    dense,
    dispatch,
    ramp,
    set_backend,
    use_backend,
)
from brloss_d2.ops.triton import launch

LOGITS = torch.tensor([0.3, 0.1, -0.2, 0.4])
LABELS = torch.tensor([1, 0, 0, 1])
QUALITY = torch.tensor([0.2, 0.7])


def test_auto_takes_triton_where_it_is_known_to_work_and_installed(monkeypatch):
    assert chosen_backend("cpu") == chosen_backend("cuda") == "torch"
    monkeypatch.setattr(dispatch, "_TRITON_DEVICES", frozenset({"cuda"}))
    for installed, expected in ((True, "triton"), (False, "torch")):
        monkeypatch.setattr(dispatch, "has_triton", lambda installed=installed: installed)
        assert chosen_backend("cuda") == expected


def test_auto_says_once_what_it_takes(caplog):
    dispatch._logged.clear()
    with caplog.at_level("DEBUG", logger="brloss_d2"):
        for _ in range(2):
            rank_sort_loss(LOGITS, LABELS, QUALITY)
    assert caplog.messages == ['back-end "auto" on cpu: torch']


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with use_backend("triton"):
        monkeypatch.setattr(launch, "has_triton", lambda: True)
        with pytest.raises(RuntimeError, match='tensors are on "cpu"'):
            rank_sort_loss(LOGITS, LABELS, QUALITY)
        assert chosen_backend("cuda") == "triton"
        monkeypatch.setattr(launch, "has_triton", lambda: False)
        with pytest.raises(RuntimeError, match="not installed"):
            chosen_backend("cuda")


def test_a_misspelt_backend_is_refused():
    with pytest.raises(ValueError, match="must be one of auto, torch, triton, reference"):
        set_backend("cuda")


def test_the_choice_ends_with_its_block():
    set_backend("torch")
    try:
        with pytest.raises(KeyError), use_backend("reference"):
            assert chosen_backend("cpu") == "reference"
            raise KeyError
        assert chosen_backend("cuda") == "torch"
    finally:
        set_backend("auto")


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_loss_uses_nothing_but_the_backend_asked_for(backend, monkeypatch):
    forbidden = {
        "torch": [(dense, "accumulate"), (dense, "ramp_sum")],
        "reference": [(cells, "accumulate"), (ramp, "ramp_sum"), (ramp, "prefix_ramp_sum_wavelet")],
    }
    with use_backend("auto"):
        expected = rank_sort_loss(LOGITS, LABELS, QUALITY)
    for module, name in forbidden[backend]:
        monkeypatch.delattr(module, name)
    with use_backend(backend):
        found = rank_sort_loss(LOGITS, LABELS, QUALITY)
    torch.testing.assert_close(found, expected)
