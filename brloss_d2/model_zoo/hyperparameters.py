"""The hyper-parameters of the losses of a config, the column #H of the published tables.

Counted is every number of the losses and their sampling that somebody has to choose: constants of a
loss (alpha and gamma of focal loss, delta of a ranking loss, beta of smooth L1), the weights of all
terms but one, the size of each sample and its share of positives. Not counted are matching,
anchors, coding and suppression of boxes, learning rates and schedules, epsilons and other bounds,
the images of a pool, and weights that balance themselves.

The papers publish totals only: the rule is ours, and gives most of them.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from brloss_d2.utils.config_nodes import target_of, walk

# Parts of a criterion whose numbers count; the weights of boxes repeat those of the target.
_PARTS = ("cls_loss", "box_loss", "mask_loss", "target", "correlation")
# Numbers of losses that are no choice: bounds, and the size of pools.
_NOT_COUNTED = ("eps", "floor", "images_per_pool")


def hyperparameters(model: DictConfig) -> dict[str, float] | None:
    """Return what has to be chosen for the losses of a model, by the rule of this module.

    Args:
        model: model node of a config.

    Returns:
        Key below `model` -> value; None where the rule gives no number: for a DETR, whose many
        weights follow from few, and for a cascade whose stages have different weights.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> model_zoo.hyperparameters(model_zoo.get_config("coco/atss_R_50_FPN_focal_1x").model)
        {'criterion.box_weight': 2.0, 'criterion.quality.loss_weight': 1.0, \
'criterion.cls_loss.alpha': 0.25, 'criterion.cls_loss.gamma': 2.0}
    """
    stages = (model.get("roi_heads") or {}).get("box_predictors") or []
    if "query_head" in model or len({stage.get("loss_weight", 1.0) for stage in stages}) > 1:
        return None
    found = {}
    for path, node in walk(model):
        if not isinstance(node, DictConfig):
            continue
        if path == "proposal_generator":  # the term of the regions' classes is the unit
            found[f"{path}.loss_weight"] = _value(node, "loss_weight")
        if path == "semantic_head":
            found[f"{path}.loss_weight"] = _value(node, "loss_weight")
        if node.get("batch_size_per_image") is not None:
            for name in ("batch_size_per_image", "positive_fraction"):
                found[f"{path}.{name}"] = _value(node, name)
        if path.rpartition(".")[2] in ("criterion", "mask_criterion"):
            found.update((f"{path}.{key}", value) for key, value in _of_criterion(node))
    return found


def _of_criterion(criterion: DictConfig) -> Iterator[tuple[str, float]]:
    """Yield weights of all terms but that of the classes, and the constants of the losses."""
    if "balancer" not in criterion:
        if criterion.box_loss:
            yield "box_weight", _value(criterion, "box_weight")
    elif target_of(criterion.balancer).__name__ == "ConstantBalancer":
        yield "balancer.weight", _value(criterion.balancer, "weight")
    if "negative_ratio" in inspect.signature(target_of(criterion)).parameters:
        yield "negative_ratio", _value(criterion, "negative_ratio")
    if criterion.get("quality") is not None:
        yield "quality.loss_weight", _value(criterion.quality, "loss_weight")
    for part in _PARTS:
        yield from _constants(criterion.get(part), part)


def _constants(node: Any, path: str) -> Iterator[tuple[str, float]]:
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return
    for name in inspect.signature(target_of(node)).parameters:
        value = _value(node, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_l1 = target_of(node).__name__ == "SmoothL1Loss" and value == 0
        if is_number and name not in _NOT_COUNTED and not is_l1:
            yield f"{path}.{name}", value
        yield from _constants(value, f"{path}.{name}")


def _value(node: DictConfig, name: str) -> Any:
    """Return an argument of a node, by default that of the signature."""
    return node.get(name, inspect.signature(target_of(node)).parameters[name].default)
