"""ImageNet weights of torchvision's ResNets for detectron2's, which name the same layers otherwise.

torchvision                      detectron2
conv1, bn1                       stem.conv1, stem.conv1.norm
layer1.0.conv2, layer1.0.bn2     res2.0.conv2, res2.0.conv2.norm
layer1.0.downsample.0, .1        res2.0.shortcut, res2.0.shortcut.norm
fc                               none
"""

import re
from collections.abc import Iterator, Mapping

from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn

from brloss_d2.errors import InputError

_MARKS = {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"}
_STEM = "stem.conv1.weight"
_CONV = re.compile(r"(stem|res\d\.\d+)\.(conv\d|shortcut)\.weight")
_MAX_MISFITS = 0.1  # a share of the convolutions; a changed stem is less, another depth far more


def is_torchvision_resnet(state: Mapping[str, object]) -> bool:
    """Whether a state dict has the names of torchvision's ResNets."""
    return state.keys() >= _MARKS


def detectron2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet; its classifier and batch counts are dropped."""
    return {
        _detectron2_name(name): weight
        for name, weight in state.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def fit_backbone(weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> tuple[str, str]:
    """Find the backbone that weights belong to, and check that they are made for it.

    Args:
        weights: the result of `detectron2_names`.
        model: the state dict of the detector.

    Returns:
        The prefix of the backbone's names in `model`, such as `backbone.bottom_up.`, and a
        sentence for the log.

    Raises:
        InputError: the model has no ResNet, or another one.
    """
    prefixes = [name[: -len(_STEM)] for name in model if f".{name}".endswith(f".{_STEM}")]
    if len(prefixes) != 1:
        raise InputError(
            "The weights of a torchvision ResNet need a model with one ResNet of detectron2; "
            f"this one has {len(prefixes) or 'none'}."
        )
    prefix = prefixes[0]
    wanted = _convolutions(model, prefix)
    offered = _convolutions(weights, "")
    stages = {name.partition(".")[0] for name in wanted}
    # A model may do without the last stage, but not without some blocks of a stage it has.
    offered = {name: shape for name, shape in offered.items() if name.partition(".")[0] in stages}
    misfits = [name for name in wanted | offered if wanted.get(name) != offered.get(name)]
    if len(misfits) > _MAX_MISFITS * len(wanted | offered):
        raise InputError(_misfit_message(prefix, misfits, wanted, offered))
    return prefix, f"{len(wanted) - len(misfits)} of {len(wanted)} convolutions of {prefix[:-1]}"


def preprocessing_mistakes(model: nn.Module) -> Iterator[str]:
    """Yield how a model differs from what torchvision's weights were trained with."""
    mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
    if std is not None and float(std.min()) < 10:
        yield "pixel_std is not (58.395, 57.12, 57.375)"
    if mean is not None and float(mean.flatten()[0]) < float(mean.flatten()[-1]):
        yield "pixel_mean is not (123.675, 116.28, 103.53): colors are RGB, not BGR"
    bottlenecks = [m for m in model.modules() if isinstance(m, BottleneckBlock)]
    if any(block.conv1.stride not in (1, (1, 1)) for block in bottlenecks):
        yield "stride_in_1x1 is True: the 3x3 convolution has the stride"


def _detectron2_name(name: str) -> str:
    name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
    name = re.sub(r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}.", name)
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return re.sub(r"\.bn(\d)\.", r".conv\1.norm.", name)


def _convolutions(state: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[int, ...]]:
    names = {name[len(prefix) :]: name for name in state if name.startswith(prefix)}
    return {short: tuple(state[n].shape) for short, n in names.items() if _CONV.fullmatch(short)}


def _misfit_message(
    prefix: str,
    misfits: list[str],
    wanted: Mapping[str, tuple[int, ...]],
    offered: Mapping[str, tuple[int, ...]],
) -> str:
    name = misfits[0]
    return (
        f"These weights are of another ResNet than {prefix[:-1]}: {len(misfits)} of "
        f"{len(wanted | offered)} convolutions differ, first {name}, "
        f"{wanted.get(name, 'absent')} in the model and {offered.get(name, 'absent')} in the file."
    )
