"""What is trained, and how fast: by the names of parameters, and over the training."""

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler
from tabulate import tabulate
from torch import nn

from brloss_d2.errors import InputError
from brloss_d2.modeling.backbone.batch_norm import fix_statistics
from brloss_d2.modeling.backbone.layers import layer_decay_factors
from brloss_d2.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)
_MOST_ROWS = 8  # of the table of learning rates


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Keep parts of a model as they are: no gradients, and fixed statistics of normalization.

    Args:
        model: model, changed in place.
        parts: names of modules or parameters, such as "backbone" or "backbone.bottom_up.stem".

    Raises:
        InputError: the model has no such part, or nothing is left to train.
    """
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for part in parts:
        frozen = [p for name, p in parameters.items() if f"{name}.".startswith(f"{part}.")]
        if not frozen:
            known = [name for name in modules if name.count(".") <= part.count(".")]
            raise InputError(
                f"train.freeze: the model has no parameters in {part!r}.{did_you_mean(part, known)}"
            )
        for parameter in frozen:
            parameter.requires_grad_(False)
        if part in modules:
            fix_statistics(modules[part])
    trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
    if not trained:
        raise InputError(f"train.freeze={list(parts)} leaves nothing to train.")
    if parts:
        text = "Frozen: %s. %.1f M parameters are trained."
        logger.info(text, ", ".join(parts), trained / 1e6)


def params_by_name(
    model: nn.Module,
    *,
    base_lr: float,
    lr_factors: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    weight_decay_norm: float | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Group parameters by learning rates that depend on parts of their names.

    Args:
        model: model whose parameters that require a gradient are grouped.
        base_lr: learning rate of parameters whose names contain no key of `lr_factors`.
        lr_factors: factor of the learning rate for each part of a name, such as "backbone"; if a
            name contains several, the longest one decides. None for no factors.
        layer_decay: factor of the learning rate from each layer of the backbone to the one below,
            in (0, 1], see `layer_decay_factors`; in addition to `lr_factors`. None for no decay.
        weight_decay_norm: weight decay of normalization layers; None for that of the optimizer, as
            for all other parameters.
        overrides: options of the optimizer for parameters whose name ends with the key, such as
            "bias". None for none.

    Returns:
        Parameter groups for a torch optimizer.

    Raises:
        InputError: no parameter has the name of a key, or the backbone has no known layers.
    """
    factors, options = dict(lr_factors or {}), {k: dict(v) for k, v in (overrides or {}).items()}
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    parts = sorted({part for name in names for part in name.split(".")})
    for key in factors:
        if not any(key in name for name in names):
            raise InputError(
                f"lr_factors: no parameter that is trained has {key!r} in its name."
                f"{did_you_mean(key, parts)}"
            )
    last = sorted({name.rpartition(".")[2] for name in names})
    for key in options:
        if key not in last:
            raise InputError(
                f"overrides: no parameter that is trained ends with {key!r}: expected some of "
                f"{', '.join(last)}. For a part of the model, set lr_factors={{{key}: FACTOR}}."
            )
    ordered = sorted(factors, key=len, reverse=True)
    by_layer = {} if layer_decay is None else layer_decay_factors(model, layer_decay)

    def factor(name: str) -> float:
        part = next((factors[x] for x in ordered if x in name), 1.0)
        return part * by_layer.get(name, 1.0)

    return get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay_norm=weight_decay_norm,
        lr_factor_func=factor,
        overrides=options,
    )


def log_rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Log which parts of a model learn at which rate, if there are several rates.

    Args:
        model: model.
        optimizer: its optimizer, before the first step.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_rate: dict[float, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        by_rate.setdefault(group["lr"], []).extend(group["params"])
    rows = []
    for rate, parameters in sorted(by_rate.items(), key=lambda row: row[0]):
        paths = [names[parameter].split(".") for parameter in parameters]
        levels = takewhile(lambda level: len({*level}) == 1, zip(*paths, strict=False))
        common = ".".join(level[0] for level in levels)
        size = f"{sum(parameter.numel() for parameter in parameters):,}"
        rows.append((f"{rate:.2g}", size, common or ", ".join(sorted({x[0] for x in paths}))))
    if len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        rows = [*rows[:half], ("...", "", f"{len(rows) - 2 * half} more"), *rows[-half:]]
    if len(rows) > 1:
        logger.info(
            "Learning rates:\n%s",
            tabulate(rows, ["rate", "parameters", "of"], disable_numparse=True),
        )


class StepCosineParamScheduler(CosineParamScheduler):
    """Cosine decay from 1 to 0 that is constant within each of a number of equal steps.

    With a step per epoch, the factor of epoch e of E is (1 + cos(pi e / E)) / 2, as in mmdetection
    with `by_epoch=True`.

    Args:
        num_steps: number of steps, >= 1.
    """

    def __init__(self, num_steps: int):
        super().__init__(start_value=1.0, end_value=0.0)
        self.num_steps = num_steps

    def __call__(self, where: float) -> float:
        """Return the factor of the learning rate at a fraction of the training, 0..1."""
        step = int((where + self.WHERE_EPSILON) * self.num_steps)
        return float(super().__call__(step / self.num_steps))
