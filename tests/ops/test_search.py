"""The table search against PyTorch's binary search."""

import pytest
import torch

from brloss_d2.ops import search
from brloss_d2.ops.search import count_below, count_reached

INF = torch.inf
EDGES = {
    "none": [],
    "spread": torch.linspace(-3, 3, 5000).tolist(),
    "crowded": [*torch.linspace(0, 1e-3, 500).tolist(), 1e6],
    "tied": [0.5] * 300 + [1.0] * 300,
    "all tied": [0.5] * 300,
    "neighbors": [1.0] * 20 + [1.0 + 2**-23] * 20,
    "denormal": [0.0] * 20 + [1e-45] * 20,
    "infinite": [-INF] * 5 + [0.1] * 20 + [INF] * 5,
    "not a number": [0.1] * 20 + [torch.nan] * 5,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EDGES)
def test_count_reached(name, dtype):
    edges = torch.tensor(EDGES[name], dtype=dtype)
    scores = torch.randn(4000, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores = torch.cat([scores, edges[~edges.isnan()], torch.tensor([INF, -INF], dtype=dtype)])
    expected = torch.bucketize(scores, edges, right=True)
    assert torch.equal(count_reached(scores, edges).long(), expected)
    if not edges.isnan().any():
        below = torch.searchsorted(edges, scores)
        assert torch.equal(count_below(scores, edges).long(), below)


@pytest.mark.parametrize("most", [1, 2, 3, 64])
def test_few_bins_leave_the_rest_to_the_search(most, monkeypatch):
    monkeypatch.setattr(search, "_MAX_BINS", most)
    g = torch.Generator().manual_seed(most)
    edges, scores = torch.randn(300, generator=g).sort().values, torch.randn(1000, generator=g)
    expected = torch.bucketize(scores, edges, right=True)
    assert torch.equal(count_reached(scores, edges).long(), expected)
