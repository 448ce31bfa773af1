"""What all losses share: checks of arguments, and the two kinds of terms of the ranking losses.

Numbers, types, shapes and devices are checked always. The values of tensors are checked at once on
a CPU; on a GPU by an asynchronous assertion of torch, for which the host does not wait: it ends the
process at one of the next operations. Compiled code does not check values.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from brloss_d2.ops import Negatives, PoolGroup, RankingPool, Term, ranks_together
from brloss_d2.ops.dispatch import fused

LossDict = dict[str, Tensor]

_BOUNDS: dict[str, Callable[[float], bool]] = {
    ">= 0": lambda x: x >= 0,
    "> 0": lambda x: x > 0,
    ">= 1": lambda x: x >= 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
# What the values of an argument have to be: lowest, highest, in words. An IoU in half precision may
# be a little above 1.
_LABELS = (-1, 1, "1 (positive), 0 (negative) or -1 (ignored)")
_VALUES = {
    "quality": (0.0, 1.01, "in [0, 1], such as the IoU of each positive"),
    "localization_error": (0.0, math.inf, "finite and >= 0"),
}


def check_numbers(bounds: str, **numbers: Any) -> None:
    """Refuse arguments that are no finite numbers within bounds.

    Args:
        bounds: ">= 0", "> 0", ">= 1" or "in [0, 1]".
        **numbers: arguments by name.

    Raises:
        ValueError: If one of them is anything else.
    """
    for name, value in numbers.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and _BOUNDS[bounds](value)):
            raise ValueError(f"{name} must be a finite number {bounds}, got {value!r}")


def check_types(**arguments: tuple[Any, type]) -> None:
    """Refuse arguments of another type, such as a box loss in the place of a ranking loss.

    Args:
        **arguments: value and type of each argument by name.

    Raises:
        ValueError: If one of them is of another type.
    """
    for name, (value, kind) in arguments.items():
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r:.60}")


def check_tensors(**tensors: Any) -> None:
    """Refuse arguments that are no dense tensors or lie on another device than the first.

    Args:
        **tensors: arguments by name.

    Raises:
        ValueError: If one of them is no tensor, or on another device.
    """
    first, *_ = tensors
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or x.layout != torch.strided or x.is_complex():
            kind = f"{type(x).__module__}.{type(x).__name__}"
            raise ValueError(
                f"{name} must be a dense tensor of real numbers, got {kind}: torch.as_tensor makes "
                "one of an array or a list"
            )
        if x.device != tensors[first].device:
            raise ValueError(
                f"{name} is on {x.device}, but {first} on {tensors[first].device}: move one of them"
            )


def check_values(
    name: str, x: Tensor, lowest: float, highest: float, meaning: str, *, nan: bool = False
) -> None:
    """Refuse a tensor with values out of range, without waiting for a GPU.

    Args:
        name: name of the argument.
        x: tensor of any shape.
        lowest: smallest value allowed.
        highest: largest value allowed; infinity allows all finite ones.
        meaning: what the values have to be, in words.
        nan: whether NaN is allowed, which a diverged network makes.

    Raises:
        ValueError: If a value of a tensor on a CPU is out of range.
    """
    if x.numel() == 0 or x.dtype == torch.bool or torch.compiler.is_compiling():
        return
    if x.is_floating_point():
        highest = min(highest, torch.finfo(x.dtype).max)  # infinity is out of any range
    elif not x.dtype.is_signed:
        lowest = max(lowest, 0)
    least, most = x.detach().aminmax()
    if x.device.type == "cuda":
        wrong = (least < lowest) | (most > highest)
        fine = ~wrong if nan else (least >= lowest) & (most <= highest)
        torch._assert_async(fine, f"{name} must be {meaning}")
    elif x.device.type == "cpu":
        low, high = least.item(), most.item()
        if not (lowest <= low and high <= highest) and not (nan and math.isnan(low)):
            wrong = x[~((x >= lowest) & (x <= highest))]
            raise ValueError(
                f"{name} must be {meaning}; {len(wrong)} of {x.numel()} values are not, such as "
                f"{', '.join(f'{value:.4g}' for value in wrong[:5].tolist())}"
            )


def at_least_float32(x: Tensor) -> Tensor:
    """Return half precision as float32, and all else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ConfiguredModule(nn.Module):
    """Module whose `repr` shows those constructor arguments that are plain values."""

    def extra_repr(self) -> str:
        """Return `name=value` of each argument kept under its own name, modules excepted."""
        constructors = [vars(c)["__init__"] for c in type(self).__mro__ if "__init__" in vars(c)]
        names = dict.fromkeys(n for f in constructors for n in inspect.signature(f).parameters)
        return ", ".join(f"{n}={vars(self)[n]!r}" for n in names if n in vars(self))


class RankingLoss(ConfiguredModule):
    """Loss of one ranking pool of M binary decisions.

    Args:
        delta: half-width of the ramp that smooths the comparison of two logits, in logits, >= 0.
            0 compares exactly.

    Attributes:
        compute: functional form of the loss.
        needs_quality: whether the loss depends on the quality of the positives.

    Raises:
        ValueError: If `delta` is no finite number >= 0.

    Example:
        >>> from brloss_d2.losses import APLoss, RankSortLoss
        >>> [loss.needs_quality for loss in (APLoss(delta=1.0), RankSortLoss(delta=0.5))]
        [False, True]
    """

    compute: ClassVar[Callable[..., LossDict]]
    needs_quality: ClassVar[bool] = True

    def __init__(self, *, delta: float = 0.5):
        super().__init__()
        check_numbers(">= 0", delta=delta)
        self.delta = delta

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        *,
        positives: Tensor | None = None,
        group: PoolGroup | None = None,
    ) -> LossDict:
        """Compute the terms of the loss; arguments as in the functional form."""
        if quality is None and self.needs_quality:
            raise ValueError(f"{type(self).__name__} needs one value per positive, got None")
        return self.compute(
            logits, labels, quality, delta=self.delta, positives=positives, group=group
        )


def check_ranking(
    logits: Tensor,
    labels: Tensor,
    values: Tensor | None,
    delta: float,
    positives: Tensor | None,
    group: PoolGroup | None,
    *,
    kind: str = "quality",
) -> Tensor:
    """Check the arguments of a ranking loss.

    Args:
        logits: (M,) logits, or (R, K); (L, M) of L rankings.
        labels: (M,) integers: 1 positive, 0 negative, -1 ignored; or (R,) class of each row, K for
            the background, -1 ignored.
        values: (P,) quality or localization errors of the positives, None if not used.
        delta: half-width of the ramp, in logits, >= 0.
        positives: (P,) positions of the positives in the flat logits; None searches for them. If
            they are given, the values of labels, quality and errors are trusted. (L, P) of L
            rankings.
        group: processes whose decisions are ranked together; None is this process alone.
        kind: meaning of `values`, "quality" or "localization_error".

    Returns:
        `positives`, found if they were not given.

    Raises:
        ValueError: If an argument is not as described.
    """
    check_numbers(">= 0", delta=delta)
    optional = {"positives": positives, kind: values}
    given = {name: x for name, x in optional.items() if x is not None}
    check_tensors(logits=logits, labels=labels, **given)
    if kind == "localization_error":  # differentiable, and of one ranking
        if values is not None and not values.is_floating_point():
            raise ValueError(f"localization_error must be floating point: {values.dtype}")
        if positives is not None and positives.ndim != 1:
            raise ValueError(f"positives must have the shape (P,), got {tuple(positives.shape)}")
    if group is not None:
        check_types(group=(group, PoolGroup))
    several = logits.ndim == 2 and positives is not None and positives.ndim == 2
    if several:
        shapes = [tuple(x.shape) for x in (logits, labels, given["positives"])]
        if len({shape[:1] for shape in shapes}) > 1 or len(logits) == 0:
            raise ValueError(
                f"expected labels and positives for each of {len(logits)} rankings, and at least "
                f"one; got {shapes[1]} labels, {shapes[2]} positives"
            )
    rows = logits.ndim == 2 and labels.shape == logits.shape[:1] and not several
    if not (logits.ndim == 1 or rows or several) or logits.dtype not in _FLOATS:
        raise ValueError(
            f"logits must be a floating point tensor of shape (M,), got {logits.dtype} "
            f"{tuple(logits.shape)}; flatten (R, K) logits together with their labels, or give one "
            "class for each row"
        )
    if not (rows or labels.shape == logits.shape) or labels.dtype not in _INTEGERS:
        raise ValueError(
            f"labels must be integers (1 positive, 0 negative, -1 ignored) of the shape of logits "
            f"{tuple(logits.shape)}, got {labels.dtype} {tuple(labels.shape)}"
        )
    if positives is None:
        positives = _find_positives(labels, logits.shape[1] if rows else 0)
        if values is not None and len(values) == len(positives):
            check_values(kind, values, *_VALUES[kind])
    elif positives.dtype != torch.int64 or positives.ndim != 1 + several:
        raise ValueError(
            f"positives must be int64 positions of shape (P,), got {positives.dtype} "
            f"{tuple(positives.shape)}"
        )
    if values is not None and values.shape != positives.shape:
        raise ValueError(
            f"expected one {kind} for each of the {positives.numel()} positives (labels == 1), "
            f"shape {tuple(positives.shape)}, got {tuple(values.shape)}"
        )
    return positives


def _find_positives(labels: Tensor, classes: int) -> Tensor:
    """Return (P,) positions of the positives from labels of decisions, or of rows of `classes`."""
    if not classes:
        check_values("labels", labels, *_LABELS)
        return (labels == 1).nonzero().squeeze(1)
    meaning = f"a class of 0..{classes - 1}, {classes} (background) or -1 (ignored)"
    check_values("labels", labels, -1, classes, meaning)
    rows = ((labels >= 0) & (labels < classes)).nonzero().squeeze(1)
    return rows * classes + labels[rows]


def binary_labels(labels: Tensor, classes: int, positives: Tensor) -> Tensor:
    """Return (R * K,) int8 labels of the decisions: 1 positive, 0 negative, -1 ignored.

    Args:
        labels: (R,) class of each row; negative if it is ignored.
        classes: number of classes, K.
        positives: (P,) int64 positions of the positives.
    """
    table = labels.clamp(max=0)[:, None].expand(-1, classes)
    binary = table.to(torch.int8, memory_format=torch.contiguous_format, copy=True)
    return binary.view(-1).index_fill_(0, positives, 1)


def ranking_pool(
    logits: Tensor,
    labels: Tensor,
    values: Tensor | None,
    delta: float,
    positives: Tensor | None,
    group: PoolGroup | None,
) -> tuple[Tensor, RankingPool]:
    """Check the arguments of a ranking loss and set up its pool; see `check_ranking`."""
    positives = check_ranking(logits, labels, values, delta, positives, group)
    return make_pool(logits, labels, positives, delta, group)


def make_pool(
    logits: Tensor,
    labels: Tensor,
    positives: Tensor | None,
    delta: float,
    group: PoolGroup | None,
) -> tuple[Tensor, RankingPool]:
    """Set up the pool of a ranking loss from arguments that `check_ranking` has checked.

    Returns:
        `(logits, pool)`: the flat logits in at least float32 (half precision is upcast once, here)
        and the pool made of them.
    """
    positives = cast(Tensor, positives)  # found by the check
    if labels.ndim < logits.ndim:
        labels, logits = binary_labels(labels, logits.shape[1], positives), logits.flatten()
    logits = at_least_float32(logits)
    return logits, RankingPool(logits, labels, positives, delta, group)


def each_ranking(loss: Callable[..., LossDict]) -> Callable[..., LossDict]:
    """Let a loss of one pool take several, as a leading axis of all its tensors.

    On a GPU they are ranked together, in hardly more operations than one of them.

    Args:
        loss: functional form, computed with leading axes where `ops.ranks_together` says so.

    Returns:
        The loss of (M,) logits, or of (L, M) logits with (L, P) positives: terms (L,).
    """

    @functools.wraps(loss)
    def of_each(
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None = None,
        *,
        positives: Tensor | None = None,
        group: PoolGroup | None = None,
        **options: Any,
    ) -> LossDict:
        one = not isinstance(positives, Tensor) or positives.ndim < 2
        if one or (group is None and ranks_together(cast(Tensor, positives))):
            return loss(logits, labels, quality, positives=positives, group=group, **options)
        delta = options.get("delta", 0.0)
        rows = check_ranking(logits, labels, quality, delta, positives, group)
        values = [None] * len(rows) if quality is None else quality
        terms = [
            loss(*row, positives=where, group=group, **options)
            for *row, where in zip(logits, labels, values, rows, strict=True)
        ]
        return {name: torch.stack([term[name] for term in terms]) for name in terms[0]}

    return of_each


def with_kernel(
    kernel: str, *, kind: str = "quality", **options: Any
) -> Callable[[Callable[..., LossDict]], Callable[..., LossDict]]:
    """Check the arguments of a loss, and compute it by a kernel as a whole where one is chosen.

    Args:
        kernel: kind of the loss in `ops.dispatch.fused`.
        kind: meaning of the values of the positives; see `check_ranking`.
        **options: options of the kernel.

    Returns:
        Decorator of the functional form, which then always gets the positions of the positives.
    """

    def decorate(loss: Callable[..., LossDict]) -> Callable[..., LossDict]:
        parameters = inspect.signature(loss).parameters
        default, required = parameters["delta"].default, parameters[kind].default is not None

        @functools.wraps(loss)
        def checked(
            logits: Tensor,
            labels: Tensor,
            values: Tensor | None = None,
            *,
            delta: float = default,
            positives: Tensor | None = None,
            group: PoolGroup | None = None,
            **named: Tensor,
        ) -> LossDict:
            values = named.pop(kind, values)
            if required:
                check_tensors(**{kind: values})
            positives = check_ranking(logits, labels, values, delta, positives, group, kind=kind)
            terms = fused(kernel, logits, labels, positives, values, delta, group, **options)
            if terms is not None:
                return terms
            given = dict(delta=delta, positives=positives, group=group, **named)
            return loss(logits, labels, values, **given)

        return checked

    return decorate


def no_positives(pool: RankingPool) -> Term:
    """Return a term of value 0 and gradient 0 (NaN if a logit is NaN or infinite)."""
    nothing = torch.zeros_like(pool.decisions) + pool.poison.to(pool.decisions.dtype)
    return Term(pool.poison.squeeze(-1), nothing)


def ranking_term(
    pool: RankingPool,
    negatives: Negatives,
    value: Tensor,
    error: Tensor,
    share: Tensor,
    *,
    scaled: bool = False,
) -> Term:
    """Return the term whose identity update raises each positive and lowers each negative.

    Args:
        pool: ranking problem with at least one positive.
        negatives: negatives of the pool.
        value: () value of the loss.
        error: (P,) update of positive i, downhill.
        share: (P,) part of `error` that a negative with H = 1 over positive i receives, uphill.
        scaled: whether `error` and `share` have been multiplied by `pool.scale`.
    """
    scale = 1.0 if scaled else pool.scale
    gradient = negatives.gradient(share if scaled else share * scale)
    own = error[..., pool.mine].to(gradient.dtype).view(-1)
    gradient.view(-1).index_add_(0, pool.where.view(-1), own, alpha=-scale)
    return Term(value, gradient)
