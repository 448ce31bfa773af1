"""Learning rates by parameter name."""

from collections.abc import Mapping
from typing import Any

from detectron2.solver.build import get_default_optimizer_params
from torch import nn


def params_by_name(
    model: nn.Module, *, base_lr: float, lr_factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Group parameters by learning rates that depend on parts of their names.

    All parameters have the weight decay of the optimizer, normalization and biases included.

    Args:
        model: model whose parameters that require a gradient are grouped.
        base_lr: learning rate of parameters whose names contain no key of `lr_factors`.
        lr_factors: factor of the learning rate for each part of a name; if a name contains several,
            the longest one decides.

    Returns:
        Parameter groups for a torch optimizer.
    """
    parts = sorted(lr_factors, key=len, reverse=True)
    return get_default_optimizer_params(
        model,
        base_lr=base_lr,
        lr_factor_func=lambda name: next((lr_factors[x] for x in parts if x in name), 1.0),
    )
