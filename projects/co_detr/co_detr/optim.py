"""Learning rates by the names of parameters."""

from collections.abc import Mapping
from typing import Any

from detectron2.solver.build import get_default_optimizer_params
from torch import nn


def params_by_name(
    model: nn.Module, *, base_lr: float, lr_factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Parameter groups whose learning rates depend on what the names of parameters contain.

    The weight decay is the optimizer's for all of them, normalization and biases included.

    Args:
        model: those of its parameters that require a gradient.
        base_lr: the learning rate of parameters that no factor is meant for.
        lr_factors: from part of a name to the factor of the learning rate; the longest part that
            a name contains counts.
    """
    parts = sorted(lr_factors, key=len, reverse=True)

    def factor(name: str) -> float:
        return next((lr_factors[part] for part in parts if part in name), 1.0)

    return get_default_optimizer_params(model, base_lr=base_lr, lr_factor_func=factor)
