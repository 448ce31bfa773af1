"""Choice between algorithms and back-ends with equal results. It is made here only.

    with use_backend("reference"):      # or set_backend("reference") for the whole process
        losses = rank_sort_loss(logits, labels, quality)

The default, `"auto"`, is PyTorch. It will be Triton on GPUs once the kernels have been run on one:
so far they agree with PyTorch in Triton's interpreter and compile for GPUs. A back-end requested by
name is used or refused, never replaced. With Triton, the loss of a process alone with up to 16,384
positives is computed by kernels as a whole, `fused`; others are put together from primitives, whose
steps without a kernel (sorting, sums over more positives) run in PyTorch with either back-end.
`chosen_backend` tells what "auto" is on a device; so does this module's logger, at debug level and
once per device.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from brloss_d2.ops import cells, dense, pairs, ramp
from brloss_d2.ops.pairs import PairSums
from brloss_d2.ops.pool_group import PoolGroup
from brloss_d2.ops.search import count_below
from brloss_d2.ops.triton.launch import check_triton, has_triton

Backend = Literal["auto", "torch", "triton", "reference"]

_FUSED_UP_TO = 16384

# Where "auto" takes Triton; see above.
_TRITON_DEVICES: frozenset[str] = frozenset()

_backend: Backend = "auto"
# Device types whose back-end was logged.
_logged: set[str] = set()


def set_backend(name: Backend) -> None:
    """Set the back-end of all losses of this process.

    Args:
        name: "auto", "torch", "triton" (GPU tensors only) or "reference" (dense and slow).

    Raises:
        ValueError: If `name` is none of these.
    """
    global _backend
    if name not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {name!r}")
    _backend = name


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Set the back-end within a `with` block; see `set_backend`."""
    previous = _backend
    set_backend(name)
    try:
        yield
    finally:
        set_backend(previous)


def chosen_backend(device: torch.device | str) -> str:
    """Return the back-end in use for tensors on `device`: "torch", "triton" or "reference".

    Raises:
        RuntimeError: If Triton was requested and cannot run on `device`.
    """
    device = torch.device(device)
    if _backend == "auto":
        chosen = "triton" if device.type in _TRITON_DEVICES and has_triton() else "torch"
        if not torch.compiler.is_compiling() and device.type not in _logged:
            _logged.add(device.type)
            logging.getLogger(__name__).debug('back-end "auto" on %s: %s', device.type, chosen)
        return chosen
    if _backend == "triton":
        check_triton(device)
    return _backend


def accumulate(logits: Tensor, labels: Tensor, edges: Tensor) -> cells.Cells:
    """Count the negatives between edges; see `cells.accumulate`."""
    backend = chosen_backend(logits.device)
    if backend == "triton":
        from brloss_d2.ops.triton import cells as kernels

        return kernels.accumulate(logits, labels, edges)
    if backend == "reference":
        return dense.accumulate(logits, labels, edges)
    form = cells.accumulate if logits.device.type == "cpu" else cells.accumulate_without_sync
    return form(logits, labels, edges)


def ramp_sum(thresholds: Tensor, values: Tensor, weights: Tensor, delta: float) -> Tensor:
    """Compute ramp sums; see `ramp.ramp_sum`."""
    backend = chosen_backend(values.device)
    if backend == "triton" and len(values) <= _FUSED_UP_TO:
        from brloss_d2.ops.triton import ramp as kernels

        return kernels.ramp_sum(thresholds, values, weights, delta)
    form = dense.ramp_sum if backend == "reference" else ramp.ramp_sum
    return form(thresholds, values, weights, delta)


class RampSums(NamedTuple):
    """Sums of `H(v_j - t_i)` over (T,) thresholds t or (V,) values v, by sorting."""

    thresholds: Tensor
    values: Tensor
    delta: float

    def of_values(self, weights: Tensor) -> Tensor:
        """Compute `sum_j weights[k, j] H(v_j - t_i)` from (K, V) weights: (K, T)."""
        return ramp_sum(self.thresholds, self.values, weights, self.delta)

    def of_ones(self) -> Tensor:
        """Compute `sum_j H(v_j - t_i)`: (T,)."""
        return self.of_values(torch.ones_like(self.values))

    def of_thresholds(self, weights: Tensor) -> Tensor:
        """Compute `sum_i weights[i] H(v_j - t_i)` from (T,) weights: (V,)."""
        # H(v - t) = H((-t) - (-v)): the mirrored sum.
        return ramp_sum(-self.values, -self.thresholds, weights, self.delta)

    def of_worse(self, quality: Tensor) -> "WorseSums":
        """Return the sums over pairs of values that are worse than the threshold alone."""
        return WorseSums(self.thresholds, quality, *quality.sort(), self.delta)


class WorseSums(NamedTuple):
    """`RampSums` over pairs whose value has a lower quality than the threshold.

    In the order of quality these are prefix sums, for thresholds mirrored and from best to worst.
    """

    logits: Tensor
    quality: Tensor
    ranked: Tensor
    ascending: Tensor
    delta: float

    def of_values(self, weights: Tensor) -> Tensor:
        """Compute the sums over values from (K, V) weights: (K, T)."""
        prefix, values = count_below(self.quality, self.ranked), self.logits[self.ascending]
        ordered = weights.index_select(1, self.ascending)
        return prefix_ramp_sum(self.logits, prefix, values, ordered, self.delta)

    def of_thresholds(self, weights: Tensor) -> Tensor:
        """Compute the sums over thresholds from (T,) weights: (V,)."""
        descending = self.ascending.flip(0)
        prefix = count_below(-self.quality, -self.ranked.flip(0))
        values = -self.logits[descending]
        return prefix_ramp_sum(-self.logits, prefix, values, weights[descending], self.delta)


def ranks_together(positives: Tensor) -> bool:
    """Whether several rankings, with (L, P) positives, are computed at once: not on a CPU."""
    together = positives.device.type != "cpu" and pairs.fits(positives)
    return together and chosen_backend(positives.device) == "torch"


def ramp_sums(thresholds: Tensor, values: Tensor, delta: float) -> RampSums | PairSums:
    """Return the sums between (..., T) thresholds and (..., V) values, float64."""
    if chosen_backend(values.device) == "torch" and pairs.fits(thresholds):
        return PairSums.between(thresholds, values, delta)
    return RampSums(thresholds, values, delta)


def prefix_ramp_sum(
    thresholds: Tensor, prefix: Tensor, values: Tensor, weights: Tensor, delta: float
) -> Tensor:
    """Compute prefix ramp sums; see `ramp.prefix_ramp_sum_wavelet`."""
    backend = chosen_backend(values.device)
    if backend == "triton" and len(values) <= _FUSED_UP_TO:
        from brloss_d2.ops.triton import ramp as kernels

        return kernels.prefix_ramp_sum(thresholds, prefix, values, weights, delta)
    few = backend == "torch" and pairs.fits(thresholds) and pairs.fits(values)
    if few or backend == "reference":
        return dense.prefix_ramp_sum(thresholds, prefix, values, weights, delta)
    return ramp.prefix_ramp_sum_wavelet(thresholds, prefix, values, weights, delta)


def fused(
    kind: str,
    logits: Tensor,
    labels: Tensor,
    positives: Tensor,
    values: Tensor | None,
    delta: float,
    group: PoolGroup | None,
    **options: Any,
) -> dict[str, Tensor] | None:
    """Compute the terms of a loss in kernels; None if they are put together from the primitives.

    The arguments are those of `triton.fused.compute`, and the processes that are ranked together.
    """
    alone = group is None or group.group is None
    fits = 0 < len(positives) <= _FUSED_UP_TO
    if not (alone and fits and chosen_backend(logits.device) == "triton"):
        return None
    from brloss_d2.ops.triton import fused as kernels

    return kernels.compute(kind, logits, labels, positives, values, delta=delta, **options)
