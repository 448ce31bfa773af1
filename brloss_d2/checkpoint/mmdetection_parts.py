"""Names of mmdetection's weights beside ours: the parts that several detectors have."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Pair = tuple[str, str]  # published name, our name

_CONV = ("weight",)
_BIASED = ("weight", "bias")
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")

# Blocks in each stage by kind of block, smaller networks first.
_BASIC = ((2, 2, 2, 2), (3, 4, 6, 3))
_BOTTLENECK = ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))
_SWIN = ((2, 2, 6, 2), (2, 2, 18, 2))
_BLOCK = re.compile(r"backbone\.(layer|(?:bottom_up\.)?res)(\d)\.(\d+)\.(.+)")
_SWIN_BLOCK = re.compile(r"backbone\.layers\.(\d)\.blocks\.(\d+)\..+")


def module(published: str, ours: str, tensors: Iterable[str] = _BIASED) -> list[Pair]:
    """The pairs of one module's tensors."""
    return [(f"{published}.{tensor}", f"{ours}.{tensor}") for tensor in tensors]


def conv(published: str, ours: str) -> list[Pair]:
    """The pair of a convolution without bias."""
    return module(published, ours, _CONV)


def resnet(state: Iterable[str], ours: str) -> Iterator[Pair]:
    """The names of a ResNet.

    Args:
        state: names of a state dict, published or ours; they tell depth, kind of block and
            deformable stages.
        ours: what our names begin with, such as "backbone.bottom_up".
    """
    layout = _resnet_layout(state)
    yield from conv("backbone.conv1", f"{ours}.stem.conv1")
    yield from module("backbone.bn1", f"{ours}.stem.conv1.norm", _BATCH_NORM)
    for stage, blocks in enumerate(layout.blocks):
        for block in range(blocks):
            old, new = f"backbone.layer{stage + 1}.{block}", f"{ours}.res{stage + 2}.{block}"
            yield from _residual_block(old, new, 3 if layout.bottleneck else 2)
            if stage in layout.deformable:
                yield from module(f"{old}.conv2.conv_offset", f"{new}.conv2_offset")
            # The first basic block keeps the width of the stem.
            if block == 0 and (layout.bottleneck or stage > 0):
                yield from conv(f"{old}.downsample.0", f"{new}.shortcut")
                yield from module(f"{old}.downsample.1", f"{new}.shortcut.norm", _BATCH_NORM)


def rpn() -> Iterator[Pair]:
    """The names of a region proposal network."""
    ours = "proposal_generator.rpn_head"
    yield from module("rpn_head.rpn_conv", f"{ours}.conv")
    yield from module("rpn_head.rpn_cls", f"{ours}.objectness_logits")
    yield from module("rpn_head.rpn_reg", f"{ours}.anchor_deltas")


def box_head(published: str, stage: str = "") -> Iterator[Pair]:
    """The names of the head of regions.

    Args:
        published: what its published names begin with.
        stage: of Cascade R-CNN: "0.", "1." or "2.".
    """
    for i in range(2):
        yield from module(f"{published}.shared_fcs.{i}", f"roi_heads.box_head.{stage}fc{i + 1}")
    yield from module(f"{published}.fc_cls", f"roi_heads.box_predictor.{stage}cls_score")
    yield from module(f"{published}.fc_reg", f"roi_heads.box_predictor.{stage}bbox_pred")


def is_swin(state: Iterable[str]) -> bool:
    """Whether the backbone in a state dict, published or ours, is a Swin transformer."""
    return any(map(_SWIN_BLOCK.fullmatch, state))


def swin(state: Iterable[str]) -> Iterator[Pair]:
    """The names of a Swin transformer whose last three stages are used; both sides have the same.

    Args:
        state: names of a state dict; they tell the depth.
    """
    return ((name, name) for name in _swin_names(_swin_depths(state)))


@dataclass(frozen=True)
class _ResNetLayout:
    blocks: tuple[int, ...]  # in each of the four stages
    bottleneck: bool
    deformable: set[int]  # stages, from 0, whose 3x3 convolutions are deformable


def _resnet_layout(state: Iterable[str]) -> _ResNetLayout:
    blocks, bottleneck, deformable = [0, 0, 0, 0], False, set()
    for match in filter(None, map(_BLOCK.fullmatch, state)):
        stage = int(match[2]) - (1 if match[1] == "layer" else 2)
        if stage in range(4):
            blocks[stage] = max(blocks[stage], int(match[3]) + 1)
            bottleneck |= match[4] == "conv3.weight"
            if match[4].startswith(("conv2.conv_offset.", "conv2_offset.")):
                deformable.add(stage)
    known = _BOTTLENECK if bottleneck else _BASIC
    return _ResNetLayout(_smallest(known, blocks), bottleneck, deformable)


def _smallest(known: tuple[tuple[int, ...], ...], blocks: list[int]) -> tuple[int, ...]:
    """The smallest network that has all the blocks named; what it lacks is then found missing."""
    fitting = [c for c in known if all(n <= m for n, m in zip(blocks, c, strict=True))]
    return (fitting or known[-1:])[0]


def _residual_block(published: str, ours: str, convs: int) -> Iterator[Pair]:
    for i in range(1, convs + 1):
        yield from conv(f"{published}.conv{i}", f"{ours}.conv{i}")
        yield from module(f"{published}.bn{i}", f"{ours}.conv{i}.norm", _BATCH_NORM)


def _swin_depths(state: Iterable[str]) -> tuple[int, ...]:
    blocks = [0, 0, 0, 0]
    for match in filter(None, map(_SWIN_BLOCK.fullmatch, state)):
        stage = int(match[1])
        if stage in range(4):
            blocks[stage] = max(blocks[stage], int(match[2]) + 1)
    return _smallest(_SWIN, blocks)


def _swin_names(depths: tuple[int, ...]) -> Iterator[str]:
    affine = ["patch_embed.proj", "patch_embed.norm", "norm1", "norm2", "norm3"]
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            prefix = f"layers.{stage}.blocks.{block}"
            affine += [f"{prefix}.{name}" for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")]
            affine += [f"{prefix}.attn.qkv", f"{prefix}.attn.proj"]
            yield f"backbone.{prefix}.attn.relative_position_bias_table"
            yield f"backbone.{prefix}.attn.relative_position_index"
        if stage < len(depths) - 1:
            affine.append(f"layers.{stage}.downsample.norm")
            yield f"backbone.layers.{stage}.downsample.reduction.weight"
    for name in affine:
        yield from (f"backbone.{name}.weight", f"backbone.{name}.bias")
