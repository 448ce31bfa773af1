"""Names of mmdetection's weights next to ours, and the architectures that consist of them.

A table of names is a list of pairs: (published name, our name). Tables are put together from the
parts of detectors by generators.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from brloss_d2.projects import import_from_projects

Pair = tuple[str, str]

WEIGHT = ("weight",)
AFFINE = ("weight", "bias")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")

# Blocks per stage by kind of block, smaller networks first.
_BASIC = ((2, 2, 2, 2), (3, 4, 6, 3))
_BOTTLENECK = ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))
_BLOCK = re.compile(r"backbone\.(layer|(?:bottom_up\.)?res)(\d)\.(\d+)\.(.+)")
_BOTTOM_UP = "backbone.bottom_up"
# Centerness of ATSS, IoU of PAA; detectors with a ranking loss have none.
_QUALITY = ("bbox_head.atss_centerness", "head.quality")
_GRID_TOWER = re.compile(r"(?:bbox_head\.cate_convs|head\.cls_tower)\.(\d+)\.")
# In training only, with cross-entropy.
_SEMANTIC = ("segm_head.segm_conv", "semantic_head.predictor")
_UPSAMPLE = ("neck.upsample_modules", "backbone.fpn_upsample")


@dataclass(frozen=True)
class Architecture:
    """Detector whose weights can be converted.

    Attributes:
        name: identifier, such as "faster_rcnn".
        table: function that returns the pairs of all weights. Its argument is the list of names
            in a state dict, published or ours: they tell what the architecture leaves open, such
            as the depth of the backbone and whether there is a quality branch.
        marks: names, published and ours, one of which is enough to recognize the architecture.
        title: name in messages; "" stands for `name`.
        warnings: function that returns what a user has to know about converted weights.
    """

    name: str
    table: Callable[[list[str]], Iterable[Pair]]
    marks: tuple[str, ...] = ()
    title: str = ""
    warnings: Callable[[Mapping[str, Tensor]], Iterable[str]] = lambda weights: ()


_REGISTRY: dict[str, Architecture] = {}


def register_architecture(architecture: Architecture) -> None:
    """Add an architecture; projects do so in their module `checkpoint_names`.

    The marks of the last one registered are looked for first, since its weights may contain all
    those of another architecture.
    """
    _REGISTRY[architecture.name] = architecture


def architectures() -> dict[str, Architecture]:
    """Return all architectures by name, those of the projects included."""
    import_from_projects("checkpoint_names")
    return dict(_REGISTRY)


def module(published: str, ours: str, tensors: Iterable[str] = AFFINE) -> list[Pair]:
    """Return the pairs of the tensors of one module."""
    return [(f"{published}.{tensor}", f"{ours}.{tensor}") for tensor in tensors]


def resnet(state: Iterable[str], ours: str = _BOTTOM_UP) -> Iterator[Pair]:
    """Yield the names of a ResNet.

    Args:
        state: names in a state dict, published or ours; they tell the depth, the kind of block
            and the deformable stages.
        ours: prefix of our names.
    """
    blocks, bottleneck, deformable = [0, 0, 0, 0], False, set()
    for match in filter(None, map(_BLOCK.fullmatch, state)):
        stage = int(match[2]) - (1 if match[1] == "layer" else 2)
        if stage in range(4):
            blocks[stage] = max(blocks[stage], int(match[3]) + 1)
            bottleneck |= match[4] == "conv3.weight"
            if match[4].startswith(("conv2.conv_offset.", "conv2_offset.")):
                deformable.add(stage)
    depths = smallest_network(_BOTTLENECK if bottleneck else _BASIC, blocks)
    yield from module("backbone.conv1", f"{ours}.stem.conv1", WEIGHT)
    yield from module("backbone.bn1", f"{ours}.stem.conv1.norm", BATCH_NORM)
    for stage, block in ((s, b) for s, depth in enumerate(depths) for b in range(depth)):
        old, new = f"backbone.layer{stage + 1}.{block}", f"{ours}.res{stage + 2}.{block}"
        for i in range(1, 4 if bottleneck else 3):
            yield from module(f"{old}.conv{i}", f"{new}.conv{i}", WEIGHT)
            yield from module(f"{old}.bn{i}", f"{new}.conv{i}.norm", BATCH_NORM)
        if stage in deformable:
            yield from module(f"{old}.conv2.conv_offset", f"{new}.conv2_offset")
        # The first basic block keeps the width of the stem.
        if block == 0 and (bottleneck or stage > 0):
            yield from module(f"{old}.downsample.0", f"{new}.shortcut", WEIGHT)
            yield from module(f"{old}.downsample.1", f"{new}.shortcut.norm", BATCH_NORM)


def smallest_network(known: tuple[tuple[int, ...], ...], blocks: list[int]) -> tuple[int, ...]:
    """Return the first network that has all blocks found; those it lacks are reported as missing.

    Args:
        known: blocks per stage of the known networks, smaller ones first.
        blocks: blocks per stage that a state dict names.
    """
    fitting = [c for c in known if all(n <= m for n, m in zip(blocks, c, strict=True))]
    return (fitting or known[-1:])[0]


def rpn() -> Iterator[Pair]:
    """Yield the names of a region proposal network."""
    ours = "proposal_generator.rpn_head"
    yield from module("rpn_head.rpn_conv", f"{ours}.conv")
    yield from module("rpn_head.rpn_cls", f"{ours}.objectness_logits")
    yield from module("rpn_head.rpn_reg", f"{ours}.anchor_deltas")


def box_head(published: str, stage: str = "") -> Iterator[Pair]:
    """Yield the names of the box head of a two-stage detector.

    Args:
        published: prefix of its published names.
        stage: "0.", "1." or "2." in Cascade R-CNN.
    """
    for i in range(2):
        yield from module(f"{published}.shared_fcs.{i}", f"roi_heads.box_head.{stage}fc{i + 1}")
    yield from module(f"{published}.fc_cls", f"roi_heads.box_predictor.{stage}cls_score")
    yield from module(f"{published}.fc_reg", f"roi_heads.box_predictor.{stage}bbox_pred")


def _backbone_and_fpn(state: list[str], first_level: int) -> Iterator[Pair]:
    yield from resnet(state)
    # With CARAFE the coarsest level, which nothing is upsampled to, is a part of the pyramid.
    has_carafe = any(name.startswith(_UPSAMPLE) for name in state)
    for i, level in enumerate(range(first_level, 7 if has_carafe else 6)):
        yield from module(f"neck.lateral_convs.{i}.conv", f"backbone.fpn_lateral{level}")
        yield from module(f"neck.fpn_convs.{i}.conv", f"backbone.fpn_output{level}")
        if has_carafe and level < 6:
            old, new = f"{_UPSAMPLE[0]}.{i}", f"{_UPSAMPLE[1]}{level}"
            yield from module(f"{old}.channel_compressor", f"{new}.compressor")
            yield from module(f"{old}.content_encoder", f"{new}.encoder")


def _faster_rcnn(state: list[str]) -> Iterator[Pair]:
    yield from _backbone_and_fpn(state, 2)
    yield from rpn()
    yield from box_head("roi_head.bbox_head")


def _mask_rcnn(state: list[str]) -> Iterator[Pair]:
    yield from _faster_rcnn(state)
    published, ours = "roi_head.mask_head", "roi_heads.mask_head"
    for i in range(4):
        yield from module(f"{published}.convs.{i}.conv", f"{ours}.mask_fcn{i + 1}")
    yield from module(f"{published}.upsample", f"{ours}.deconv")
    yield from module(f"{published}.conv_logits", f"{ours}.predictor")


def _cascade_rcnn(state: list[str]) -> Iterator[Pair]:
    yield from _backbone_and_fpn(state, 2)
    yield from rpn()
    for i in range(3):
        yield from box_head(f"roi_head.bbox_head.{i}", f"{i}.")


def _one_stage(state: list[str], published: str) -> Iterator[Pair]:
    """Yield the names of a one-stage detector.

    Of the published prefixes of output layers, only "atss" (also PAA) has normalized towers, scales
    and possibly a quality branch.
    """
    yield from _backbone_and_fpn(state, 3)
    yield from module("neck.fpn_convs.3.conv", "backbone.top_block.p6")
    yield from module("neck.fpn_convs.4.conv", "backbone.top_block.p7")
    normalized = published == "atss"
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        for i in range(4):
            old, new = f"bbox_head.{branch}.{i}", f"head.{tower}.{i}"
            yield from module(f"{old}.conv", new, WEIGHT if normalized else AFFINE)
            if normalized:
                yield from module(f"{old}.gn", f"{new}.norm")
    yield from module(f"bbox_head.{published}_cls", "head.cls_logits")
    yield from module(f"bbox_head.{published}_reg", "head.bbox_pred")
    if normalized:
        for level in range(5):
            yield from module(f"bbox_head.scales.{level}", f"head.scales.{level}", ("scale",))
        if any(name.startswith(_QUALITY) for name in state):
            yield from module(*_QUALITY)


def _yolact(state: list[str]) -> Iterator[Pair]:
    yield from _backbone_and_fpn(state, 3)
    yield from module("neck.fpn_convs.3.conv", "backbone.top_block.p6")
    yield from module("neck.fpn_convs.4.conv", "backbone.top_block.p7")
    yield from module("bbox_head.head_convs.0.conv", "head.tower.0")
    yield from module("bbox_head.conv_cls", "head.cls_logits")
    yield from module("bbox_head.conv_reg", "head.bbox_pred")
    yield from module("bbox_head.conv_coeff", "head.mask_coefficients")
    # The layers without weights are counted, too.
    for i, layer in enumerate((0, 2, 4, 8)):
        yield from module(f"mask_head.protonet.{layer}", f"prototype_net.convs.{i}")
    yield from module("mask_head.protonet.10", "prototype_net.predictor")
    if any(name.startswith(_SEMANTIC) for name in state):
        yield from module(*_SEMANTIC)


def _solov2(state: list[str]) -> Iterator[Pair]:
    yield from _backbone_and_fpn(state, 2)
    depths = [int(match[1]) + 1 for match in map(_GRID_TOWER.match, state) if match is not None]
    for branch, tower in (("cate_convs", "cls_tower"), ("kernel_convs", "kernel_tower")):
        for i in range(max(depths, default=4)):
            yield from _normalized(f"bbox_head.{branch}.{i}", f"head.{tower}.{i}")
    yield from module("bbox_head.solo_cate", "head.cls_logits")
    yield from module("bbox_head.solo_kernel", "head.kernel_pred")
    for level in range(4):
        for i in range(max(level, 1)):
            published = f"mask_feat_head.convs_all_levels.{level}.conv{i}"
            yield from _normalized(published, f"mask_head.levels.{level}.{i}")
    yield from _normalized("mask_feat_head.conv_pred.0", "mask_head.output")


def _normalized(published: str, ours: str) -> Iterator[Pair]:
    """Yield the names of a convolution with group normalization."""
    yield from module(f"{published}.conv", ours, WEIGHT)
    yield from module(f"{published}.gn", f"{ours}.norm")


_BUILT_IN = (
    Architecture("resnet", resnet, title="ResNet"),
    Architecture(
        "faster_rcnn",
        _faster_rcnn,
        ("roi_head.bbox_head.fc_cls.weight", "roi_heads.box_predictor.cls_score.weight"),
    ),
    Architecture(
        "mask_rcnn",
        _mask_rcnn,
        ("roi_head.mask_head.conv_logits.weight", "roi_heads.mask_head.predictor.weight"),
    ),
    Architecture(
        "cascade_rcnn",
        _cascade_rcnn,
        ("roi_head.bbox_head.0.fc_cls.weight", "roi_heads.box_predictor.0.cls_score.weight"),
    ),
    Architecture(
        "retinanet",
        partial(_one_stage, published="retina"),
        ("bbox_head.retina_cls.weight", "head.cls_logits.weight"),
    ),
    Architecture("fovea", partial(_one_stage, published="fovea"), ("bbox_head.fovea_cls.weight",)),
    Architecture("paa", partial(_one_stage, published="atss"), title="PAA"),
    Architecture(
        "atss",
        partial(_one_stage, published="atss"),
        ("bbox_head.atss_cls.weight", "head.scales.0.scale"),
        title="ATSS or PAA",
    ),
    Architecture(
        "yolact",
        _yolact,
        ("mask_head.protonet.0.weight", "prototype_net.predictor.weight"),
        title="YOLACT",
    ),
    Architecture(
        "solov2",
        _solov2,
        ("bbox_head.solo_cate.weight", "head.kernel_pred.weight"),
        title="SOLOv2",
    ),
)
for _architecture in _BUILT_IN:
    register_architecture(_architecture)
