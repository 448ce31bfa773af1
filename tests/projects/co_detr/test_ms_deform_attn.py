"""Deformable attention: definition, gradients, memory, mixed precision, initialization."""

import math

import pytest
import torch
from torch.library import opcheck

from brloss_d2.projects.co_detr.layers import ms_deform_gather, ms_deform_torch
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.layers.ms_deform_attn import (
    MSDeformAttn,
    ms_deform_sample,
    sampling_locations,
)
from tests.projects.co_detr.ms_deform_reference import (
    Problem,
    by_grid_sample,
    by_loops,
    random_problem,
    values_and_gradients,
)

SHAPES = [(8, 11), (4, 6), (2, 3), (1, 2)]


def sample(problem: Problem) -> torch.Tensor:
    return ms_deform_sample(*problem, backend="torch")


def geometry() -> FeatureGeometry:
    maps = [torch.zeros(2, 1, h, w) for h, w in SHAPES]
    return FeatureGeometry.build(maps, [(64, 88), (50, 60)], (64, 88))


def test_the_definition():
    problem = random_problem()
    torch.testing.assert_close(sample(problem), by_loops(problem), rtol=0, atol=1e-12)


def test_the_form_for_graphs():
    problem = random_problem()
    found = ms_deform_gather.sample(*problem)
    torch.testing.assert_close(found, by_loops(problem), rtol=0, atol=1e-12)


@pytest.mark.parametrize("points_at_once", [1, 80, 1 << 20])
def test_gradients_in_chunks_of_any_size(points_at_once, monkeypatch):
    """Chunks of one head, of some and of several images."""
    monkeypatch.setattr(ms_deform_torch, "_POINTS", dict.fromkeys(["cpu", "cuda"], points_at_once))
    monkeypatch.setattr(ms_deform_torch, "_GATHERED", dict.fromkeys(["cpu", "cuda"], 300))
    problem = random_problem(n=3)
    found = values_and_gradients(sample, problem)
    for x, y in zip(found, values_and_gradients(by_grid_sample, problem), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-11 * y.abs().max().item())


def test_gradcheck():
    problem = random_problem(n=1, shapes=((3, 4), (2, 2)), queries=2, heads=2, channels=2)
    leaves = [x.requires_grad_() for x in problem if isinstance(x, torch.Tensor)]
    torch.autograd.gradcheck(lambda v, at, w: ms_deform_sample(v, problem.shapes, at, w), leaves)


def test_the_same_bits_twice():
    problem = random_problem(queries=50).to(torch.float32)
    first, second = (values_and_gradients(sample, problem) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_without_queries():
    out, by_value, *_ = values_and_gradients(sample, random_problem(queries=0))
    assert out.shape == (2, 0, 15)
    assert not by_value.any()


def test_nan_and_far_points():
    problem = random_problem()
    problem.locations[0, 0, 0, 0, 0, 0] = torch.nan
    problem.locations[1, 0, 0, 0, 0] = 1e30
    out = sample(problem).unflatten(2, (3, -1))
    assert out[0, 0, 0].isnan().all()
    assert out.isnan().sum() == out.shape[-1]


def test_memory_of_the_graph():
    """The graph keeps value, locations and weights, 2,560 bytes per cell; `grid_sample` 18,944."""
    problem = random_problem(1, SHAPES, sum(h * w for h, w in SHAPES), 8, 32, 4).to(torch.float32)

    def kept_by(function) -> float:
        kept = {}

        def pack(x):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        leaves = [x.requires_grad_() for x in problem if isinstance(x, torch.Tensor)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = function(Problem(leaves[0], problem.shapes, *leaves[1:]))
        assert out.requires_grad
        return sum(kept.values()) / problem.value.shape[1]

    assert kept_by(sample) == 2560
    assert kept_by(by_grid_sample) > 18_000


def test_half_precision_is_sampled_in_single():
    problem = random_problem()
    half = problem.to(torch.bfloat16)
    expected = sample(half.to(torch.float32))
    assert torch.equal(sample(half), expected.to(torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values_and_gradients(sample, problem.to(torch.float32))
    expected = values_and_gradients(sample, problem.to(torch.float32))
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_operator():
    """Schema, fake tensors, autograd and ahead-of-time graphs fit the needs of torch.compile."""
    problem = random_problem().to(torch.float32)
    leaves = [x.requires_grad_() for x in problem if isinstance(x, torch.Tensor)]
    flat = [size for shape in problem.shapes for size in shape]
    opcheck(torch.ops.brloss_d2.ms_deform_sample.default, (*leaves, flat, "torch"))


def test_compiled_in_one_graph():
    problem = random_problem()
    compiled = torch.compile(lambda p: sample(p).sin(), fullgraph=True, backend="aot_eager")
    found = values_and_gradients(compiled, problem)
    expected = values_and_gradients(lambda p: sample(p).sin(), problem)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y)


def test_mistakes():
    problem = random_problem()
    with pytest.raises(ValueError, match="backend must be one of auto, torch, triton, got 'cuda'"):
        ms_deform_sample(*problem, backend="cuda")
    with pytest.raises(ValueError, match=r"ask for value \(N, 48, M, D\)"):
        sample(problem._replace(value=problem.value[:, 1:]))
    with pytest.raises(ValueError, match="locations"):
        sample(problem._replace(locations=problem.locations[:, :, :, :1]))


def test_triton_is_never_replaced(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match='backend "triton" was requested'):
        ms_deform_sample(*random_problem(), backend="triton")


def test_initial_points_lie_on_rays():
    attention = MSDeformAttn(32, 8, 4, 4)
    offsets = attention.sampling_offsets.bias.unflatten(0, (8, 4, 4, 2))
    assert not attention.sampling_offsets.weight.any()
    radii = torch.arange(1.0, 5)
    diagonal = torch.stack([radii, radii], dim=-1)
    axis = torch.stack([radii, torch.zeros(4)], dim=-1)
    # Head 0 samples to the right, head 1 to the lower right.
    torch.testing.assert_close(offsets[0], axis.expand(4, -1, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(offsets[1], diagonal.expand(4, -1, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(offsets.abs().amax(-1), radii.expand(8, 4, -1), rtol=0, atol=1e-6)
    for layer in (attention.attention_weights, attention.value_proj, attention.output_proj):
        assert not layer.bias.any()
    assert not attention.attention_weights.weight.any()
    bound = math.sqrt(6 / 64)
    assert 0.9 * bound < attention.value_proj.weight.abs().max() <= bound


def attend(attention: MSDeformAttn, references: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Attention by its definition, in float64, with the loops of the reference."""
    places = geometry()
    n, q, _ = query.shape
    offsets = attention.sampling_offsets(query).view(n, q, 4, 4, 2, 2)
    weights = attention.attention_weights(query).view(n, q, 4, 8).softmax(-1).view(n, q, 4, 4, 2)
    value = attention.value_proj(torch.ones(n, 120, 8, dtype=torch.float64).cumsum(1) / 120)
    value = (value * ~places.padding[..., None]).view(n, 120, 4, 2)
    locations = torch.zeros_like(offsets)
    for level, (h, w) in enumerate(SHAPES):
        reference = references[:, :, None, level, None]
        size = offsets.new_tensor([w, h])
        step = 1 / size if references.shape[-1] == 2 else reference[..., 2:] / (2 * 2)
        locations[:, :, :, level] = reference[..., :2] + offsets[:, :, :, level] * step
    return attention.output_proj(by_loops(Problem(value, tuple(SHAPES), locations, weights)))


@pytest.mark.parametrize("numbers", [2, 4])
def test_module(numbers):
    """References are points or boxes; padding counts as zero; the residual has no position."""
    torch.manual_seed(0)
    attention = MSDeformAttn(8, 4, 4, 2).double()
    torch.nn.init.normal_(attention.sampling_offsets.weight)
    torch.nn.init.normal_(attention.attention_weights.weight)
    query, position = torch.randn(2, 2, 3, 8, dtype=torch.float64)
    references = torch.rand(2, 3, 4, numbers, dtype=torch.float64)
    value = torch.ones(2, 120, 8, dtype=torch.float64).cumsum(1) / 120
    with torch.no_grad():
        found = attention(query, position, value, references, geometry())
        expected = query + attend(attention, references, query + position)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_module_under_autocast():
    torch.manual_seed(0)
    attention = MSDeformAttn(8, 4, 4, 2)
    query, position = torch.randn(2, 2, 120, 8)
    references = torch.rand(2, 120, 4, 2)
    expected = attention(query, position, query, references, geometry())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(query, position, query, references, geometry())
    found.sum().backward()
    assert (found - expected).abs().max() < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attention.parameters())


def test_offsets_in_half_precision_on_a_wide_level():
    """bfloat16 cannot represent 333."""
    offsets = torch.tensor([100.0, 0.0], dtype=torch.bfloat16).expand(1, 1, 1, 1, 1, 2)
    references = torch.tensor([0.5 / 333, 0.5]).expand(1, 1, 1, 2)
    found = sampling_locations(references, offsets, [(1, 333)]).flatten()
    torch.testing.assert_close(found, torch.tensor([100.5 / 333, 0.5]))
