"""Memory of a loss per logit, the gradient included."""

import pytest
import torch

from brloss_d2.ops import cells
from tests.helpers.cases import TABLE

pytest.importorskip("support.pretend_device", exc_type=ImportError)  # an older torch
from support.pretend_device import DEVICE, pretend_device
from support.timing import MIB, peak_memory

SIZE, POSITIVES = 1 << 20, 64


def bytes_per_logit(loss: str, device: str | torch.device, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SIZE, generator=generator, dtype=dtype)
    positives = torch.arange(0, SIZE, SIZE // POSITIVES)
    labels = torch.zeros(SIZE, dtype=torch.int8).index_fill_(0, positives, 1)
    values = torch.rand(POSITIVES, generator=generator, dtype=dtype)
    logits, *others = (x.to(device) for x in (logits, labels, values, positives))
    logits.requires_grad_()

    def forward() -> torch.Tensor:
        labels, values, positives = others
        return sum(TABLE[loss].function(logits, labels, values, positives=positives).values())

    return peak_memory(forward, logits, device) * MIB / SIZE


@pytest.mark.parametrize("loss", TABLE)
def test_on_a_cpu_where_nearly_all_logits_count(loss: str) -> None:
    """Cells, the gradient, and its product with that of the term; the rest is done in parts."""
    assert bytes_per_logit(loss, "cpu", torch.float32) < 14


@pytest.mark.parametrize("loss", TABLE)
def test_on_a_device(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells and two numbers of float64; logits of float32 would be copied by the CPU beneath."""
    monkeypatch.setattr(cells, "_COPIED_CELLS", 1 << 12)
    with pretend_device():
        assert bytes_per_logit(loss, DEVICE, torch.float64) < 21
