"""Counting negatives in cells and writing their gradients, on a CPU."""

import pytest
import torch

from brloss_d2.ops import cells, dense


@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("lowest", [-3.0, 1.0], ids=["all logits are visited", "few are chosen"])
def test_against_the_definition(lowest, slopes, monkeypatch):
    monkeypatch.setattr(cells, "_CHUNK", 300)
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, generator=g).clamp(-2.5).round(decimals=2)
    labels = torch.randint(-1, 2, (1000,), generator=g)
    edges = torch.linspace(lowest, 2, 41, dtype=torch.float64)  # some are logits
    lines = torch.randn(1 + slopes, 42, generator=g, dtype=torch.float64).index_fill_(
        1, torch.tensor([0]), 0
    )
    found, expected = (form(logits, labels, edges) for form in (cells.accumulate, dense.accumulate))
    torch.testing.assert_close(found.sums, expected.sums)
    torch.testing.assert_close(found.write(lines), expected.write(lines))
    assert found.sums[0].sum() == ((labels == 0) & (logits >= lowest)).sum()
