"""Weights of mmdetection's detectors under the names of ours, and back.

Both hold the same tensors: colors in the order RGB, anchors and classes in the same order with the
background of a softmax last, region features flattened channel by channel, the deconvolution of the
mask head as (in, out, 2, 2), and the offsets of deformable convolutions as (y, x) pairs, group by
group, before all masks. So nothing but names changes, and no tensor is copied.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from brloss_d2.checkpoint.mmdetection_names import TABLES, name_table
from brloss_d2.errors import InputError

ARCHITECTURES = tuple(TABLES)

# One weight that tells an architecture, published and ours; the first that is found counts.
_MARKS = {
    "co_deformable_detr": {"query_head.query_embedding.weight", "query_head.content.weight"},
    "atss": {"bbox_head.atss_cls.weight", "head.scales.0.scale"},
    "fovea": {"bbox_head.fovea_cls.weight"},
    "retinanet": {"bbox_head.retina_cls.weight", "head.cls_logits.weight"},
    "cascade_rcnn": {
        "roi_head.bbox_head.0.fc_cls.weight",
        "roi_heads.box_predictor.0.cls_score.weight",
    },
    "mask_rcnn": {"roi_head.mask_head.conv_logits.weight", "roi_heads.mask_head.predictor.weight"},
    "faster_rcnn": {"roi_head.bbox_head.fc_cls.weight", "roi_heads.box_predictor.cls_score.weight"},
}
_TRAINING_STATE = re.compile(r"(.+\.)?(num_batches_tracked|criterion\..+)")
_OWNER = re.compile(r"(.+?)(\.norm\.\w+|\.bias)")
_NAMED = 6  # names in a message


def from_mmdetection(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename the weights of a published detector.

    Args:
        state: a state dict of mmdetection; counters of batch normalization are dropped.
        architecture: one of `ARCHITECTURES`.

    Returns:
        The same tensors under the names of our models.

    Raises:
        InputError: a weight of the architecture is missing, one is left over, or the shape of one
            contradicts another's.
    """
    pairs = _table(state, architecture)
    renamed = _renamed(state, dict(pairs), architecture)
    _check_shapes(renamed)
    return renamed


def to_mmdetection(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Rename the weights of one of our detectors; the inverse of `from_mmdetection`.

    The state of losses (`EpochSelfBalancer`) is dropped too.

    Raises:
        InputError: as `from_mmdetection`.
    """
    names = {ours: published for published, ours in _table(state, architecture)}
    renamed = _renamed(state, names, architecture)
    _check_shapes({name: state[name] for name in names})
    return renamed


def recognize_architecture(state: Mapping[str, object]) -> str:
    """Tell from the names of a state dict, published or ours, which architecture it is of.

    ATSS and PAA have the same weights: both are "atss". So have RetinaNet and FoveaBox under our
    names: both are "retinanet". A backbone alone is "resnet".

    Raises:
        InputError: it is of none of `ARCHITECTURES`.
    """
    for architecture, marks in _MARKS.items():
        if state.keys() & marks:
            return architecture
    if all(name.startswith("backbone.") for name in state):
        return "resnet"
    heads = [name for name in state if not name.startswith(("backbone.", "neck."))]
    raise InputError(
        f"These weights are of none of the architectures {', '.join(ARCHITECTURES)}: beside "
        f"backbone and neck there are {listed(heads)}."
    )


def without_training_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out counters of batch normalization and the state of losses."""
    return {name: weight for name, weight in state.items() if not _TRAINING_STATE.fullmatch(name)}


def _table(state: Iterable[str], architecture: str) -> list[tuple[str, str]]:
    if architecture not in TABLES:
        raise InputError(
            f"There is no architecture {architecture!r}; known ones: {', '.join(ARCHITECTURES)}."
        )
    return name_table(state, architecture)


def _renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], architecture: str
) -> dict[str, Tensor]:
    weights = without_training_state(state)
    missing = [name for name in names if name not in weights]
    unknown = [name for name in weights if name not in names]
    if missing or unknown:
        raise InputError(
            f"These are not the weights of {architecture}: "
            f"{len(missing)} missing ({listed(missing)}), "
            f"{len(unknown)} left over ({listed(unknown)})."
        )
    return {new: weights[old] for old, new in names.items()}


def _check_shapes(ours: Mapping[str, Tensor]) -> None:
    """Compare biases and normalizations with the convolutions they belong to."""
    for name, tensor in ours.items():
        if match := _OWNER.fullmatch(name):
            weight = ours.get(f"{match[1]}.weight")
            if weight is None:  # a normalization that follows no convolution
                continue
            channels = weight.shape[1 if match[1].endswith(".deconv") else 0]
            if tensor.shape != (channels,):
                raise InputError(
                    f"{name} has the shape {tuple(tensor.shape)}, but {match[1]}.weight "
                    f"{tuple(weight.shape)} asks for ({channels},)."
                )


def listed(names: Iterable[str]) -> str:
    """The first names of many, for a message; "none" where there are none."""
    names = list(names)
    if not names:
        return "none"
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
