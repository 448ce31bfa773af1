"""Names of mmdetection's weights beside ours, put together from the parts of the detectors."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

Pair = tuple[str, str]  # published name, our name

_CONV = ("weight",)
_BIASED = ("weight", "bias")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")

# Blocks in each stage by kind of block, smaller networks first.
_BASIC = ((2, 2, 2, 2), (3, 4, 6, 3))
_BOTTLENECK = ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))
_BLOCK = re.compile(r"backbone\.(layer|bottom_up\.res)(\d)\.(\d+)\.(.+)")
# Centerness of ATSS, IoU of PAA; detectors with a ranking loss have none.
_QUALITY = ("bbox_head.atss_centerness", "head.quality")


def name_table(state: Iterable[str], architecture: str) -> list[Pair]:
    """The names of all weights of a detector.

    Args:
        state: names of its state dict, published or ours. They tell what the architecture leaves
            open: depth, kind of block and deformable stages of the ResNet, quality branch.
        architecture: a key of `PARTS`.

    Returns:
        Pairs of (published name, our name).
    """
    state = list(state)
    pairs = [*_resnet(_resnet_layout(state)), *PARTS[architecture]()]
    if PARTS[architecture] is _dense and any(name.startswith(_QUALITY) for name in state):
        pairs += _module(*_QUALITY)
    return pairs


@dataclass(frozen=True)
class _ResNetLayout:
    blocks: tuple[int, ...]  # in each of the four stages
    bottleneck: bool
    deformable: set[int]  # stages, from 0, whose 3x3 convolutions are deformable


def _resnet_layout(state: Iterable[str]) -> _ResNetLayout:
    """The smallest ResNet that has all the blocks named; what it lacks is then found missing."""
    blocks, bottleneck, deformable = [0, 0, 0, 0], False, set()
    for match in filter(None, map(_BLOCK.fullmatch, state)):
        stage = int(match[2]) - (1 if match[1] == "layer" else 2)
        if stage in range(4):
            blocks[stage] = max(blocks[stage], int(match[3]) + 1)
            bottleneck |= match[4] == "conv3.weight"
            if match[4].startswith(("conv2.conv_offset.", "conv2_offset.")):
                deformable.add(stage)
    known = _BOTTLENECK if bottleneck else _BASIC
    fitting = [c for c in known if all(n <= m for n, m in zip(blocks, c, strict=True))]
    return _ResNetLayout((fitting or known[-1:])[0], bottleneck, deformable)


def _resnet(layout: _ResNetLayout) -> Iterator[Pair]:
    yield from _module("backbone.conv1", "backbone.bottom_up.stem.conv1", _CONV)
    yield from _module("backbone.bn1", "backbone.bottom_up.stem.conv1.norm", _BATCH_NORM)
    for stage, blocks in enumerate(layout.blocks):
        for block in range(blocks):
            published = f"backbone.layer{stage + 1}.{block}"
            ours = f"backbone.bottom_up.res{stage + 2}.{block}"
            convs = 3 if layout.bottleneck else 2
            yield from _residual_block(published, ours, convs)
            if stage in layout.deformable:
                yield from _module(f"{published}.conv2.conv_offset", f"{ours}.conv2_offset")
            # The first basic block keeps the width of the stem.
            if block == 0 and (layout.bottleneck or stage > 0):
                yield from _module(f"{published}.downsample.0", f"{ours}.shortcut", _CONV)
                yield from _module(
                    f"{published}.downsample.1", f"{ours}.shortcut.norm", _BATCH_NORM
                )


def _residual_block(published: str, ours: str, convs: int) -> Iterator[Pair]:
    for i in range(1, convs + 1):
        yield from _module(f"{published}.conv{i}", f"{ours}.conv{i}", _CONV)
        yield from _module(f"{published}.bn{i}", f"{ours}.conv{i}.norm", _BATCH_NORM)


def _fpn(first_level: int) -> Iterator[Pair]:
    for i, level in enumerate(range(first_level, 6)):
        yield from _module(f"neck.lateral_convs.{i}.conv", f"backbone.fpn_lateral{level}")
        yield from _module(f"neck.fpn_convs.{i}.conv", f"backbone.fpn_output{level}")


def _rpn() -> Iterator[Pair]:
    ours = "proposal_generator.rpn_head"
    yield from _module("rpn_head.rpn_conv", f"{ours}.conv")
    yield from _module("rpn_head.rpn_cls", f"{ours}.objectness_logits")
    yield from _module("rpn_head.rpn_reg", f"{ours}.anchor_deltas")


def _box_head(stage: str = "") -> Iterator[Pair]:
    """Of Faster R-CNN, or of a stage ("0.", "1.", "2.") of Cascade R-CNN."""
    published = f"roi_head.bbox_head.{stage}"
    for i in range(2):
        yield from _module(f"{published}shared_fcs.{i}", f"roi_heads.box_head.{stage}fc{i + 1}")
    yield from _module(f"{published}fc_cls", f"roi_heads.box_predictor.{stage}cls_score")
    yield from _module(f"{published}fc_reg", f"roi_heads.box_predictor.{stage}bbox_pred")


def _mask_head() -> Iterator[Pair]:
    published, ours = "roi_head.mask_head", "roi_heads.mask_head"
    for i in range(4):
        yield from _module(f"{published}.convs.{i}.conv", f"{ours}.mask_fcn{i + 1}")
    yield from _module(f"{published}.upsample", f"{ours}.deconv")
    yield from _module(f"{published}.conv_logits", f"{ours}.predictor")


def _faster_rcnn() -> Iterator[Pair]:
    return chain(_fpn(2), _rpn(), _box_head())


def _cascade_rcnn() -> Iterator[Pair]:
    return chain(_fpn(2), _rpn(), _box_head("0."), _box_head("1."), _box_head("2."))


def _mask_rcnn() -> Iterator[Pair]:
    return chain(_faster_rcnn(), _mask_head())


def _dense() -> Iterator[Pair]:
    yield from _fpn(3)
    yield from _module("neck.fpn_convs.3.conv", "backbone.top_block.p6")
    yield from _module("neck.fpn_convs.4.conv", "backbone.top_block.p7")
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        for i in range(4):
            yield from _module(f"bbox_head.{branch}.{i}.conv", f"head.{tower}.{i}", _CONV)
            yield from _module(f"bbox_head.{branch}.{i}.gn", f"head.{tower}.{i}.norm")
    yield from _module("bbox_head.atss_cls", "head.cls_logits")
    yield from _module("bbox_head.atss_reg", "head.bbox_pred")
    for level in range(5):
        yield from _module(f"bbox_head.scales.{level}", f"head.scales.{level}", ("scale",))


def _plain_dense(published_head: str) -> Iterator[Pair]:
    """RetinaNet and FoveaBox: towers without normalisation, no scales."""
    yield from _fpn(3)
    yield from _module("neck.fpn_convs.3.conv", "backbone.top_block.p6")
    yield from _module("neck.fpn_convs.4.conv", "backbone.top_block.p7")
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        for i in range(4):
            yield from _module(f"bbox_head.{branch}.{i}.conv", f"head.{tower}.{i}")
    yield from _module(f"bbox_head.{published_head}_cls", "head.cls_logits")
    yield from _module(f"bbox_head.{published_head}_reg", "head.bbox_pred")


def _retinanet() -> Iterator[Pair]:
    return _plain_dense("retina")


def _fovea() -> Iterator[Pair]:
    return _plain_dense("fovea")


def _module(published: str, ours: str, tensors: Iterable[str] = _BIASED) -> list[Pair]:
    return [(f"{published}.{tensor}", f"{ours}.{tensor}") for tensor in tensors]


# All but the ResNet and the quality branch, by architecture.
PARTS: dict[str, Callable[[], Iterable[Pair]]] = {
    "faster_rcnn": _faster_rcnn,
    "cascade_rcnn": _cascade_rcnn,
    "mask_rcnn": _mask_rcnn,
    "atss": _dense,
    "paa": _dense,
    "retinanet": _retinanet,
    "fovea": _fovea,
    "resnet": list,
}
