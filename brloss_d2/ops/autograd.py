"""Loss terms with hand-made gradients: the only uses of `autograd.Function` in the package."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Differentiate = Callable[..., tuple[Tensor | None, ...]]


class Term(NamedTuple):
    """Value and gradient of one loss term.

    Attributes:
        value: (...) value of the term.
        gradient: (..., M) gradient with respect to the logits, or (..., P) those at the positions
            `where`.
        where: (..., P) positions of the entries of `gradient` among all logits, flattened; None if
            it has all of them.
    """

    value: Tensor
    gradient: Tensor
    where: Tensor | None = None


class _HandMadeGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, *flat: Tensor | None) -> tuple[Tensor, ...]:
        values, gradients, indices = flat[0::3], flat[1::3], flat[2::3]
        ctx.save_for_backward(*gradients, *indices)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return tuple(v.to(logits.dtype) for v in values if v is not None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors[: len(upstream)]
        indices = ctx.saved_tensors[len(upstream) :]
        total: Tensor | None = None
        for scale, gradient, index in zip(upstream, gradients, indices, strict=True):
            part = scale[..., None] * gradient.to(ctx.dtype)
            if index is not None:
                if total is None:
                    total = part.new_zeros(ctx.shape)
                total.view(-1).index_add_(0, index.view(-1), part.view(-1))
            else:
                total = part if total is None else total.add_(part)
        return (total, *([None] * 3 * len(upstream)))


def attach(logits: Tensor, *terms: Term) -> tuple[Tensor, ...]:
    """Attach the values of `terms` to the graph of `logits` (..., M), in its dtype.

    In the backward pass each term contributes its own gradient times the upstream gradient of its
    value, so that terms may be weighted separately.
    """
    return _HandMadeGradients.apply(logits, *(x for term in terms for x in term))


class _GradientsOnDemand(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, differentiate: Differentiate, values: tuple[Tensor, ...], *inputs: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.differentiate = differentiate
        ctx.save_for_backward(*inputs)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises if an input has been changed in place
        return (None, None, *ctx.differentiate(*upstream))


def attach_function(
    differentiate: Differentiate, values: tuple[Tensor, ...], *inputs: Tensor | None
) -> tuple[Tensor, ...]:
    """Attach `values` to the graph of `inputs`, whose gradients are computed when they are needed.

    Args:
        differentiate: function from the upstream gradients of all values to the gradients of the
            inputs.
        values: tensors without gradient.
        inputs: tensors that the values depend on; None are passed on.
    """
    return _GradientsOnDemand.apply(differentiate, values, *inputs)


def with_value(x: Tensor, value: Tensor) -> Tensor:
    """Return `value`, detached and in the dtype of `x`, with the gradient of `x`."""
    return x - x.detach() + value.detach().to(x.dtype)
