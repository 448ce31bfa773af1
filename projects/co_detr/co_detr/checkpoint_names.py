"""Names of the published weights of Co-Deformable-DETR, BRS-DETR and Co-DINO next to ours.

`brloss_d2.checkpoint` imports this module when it converts a checkpoint.
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from brloss_d2.checkpoint import Architecture, register_architecture
from brloss_d2.checkpoint.mmdetection_names import (
    WEIGHT,
    Pair,
    box_head,
    module,
    resnet,
    rpn,
    smallest_network,
)

_TRANSFORMER = "query_head.transformer"
_LAYER = re.compile(r"query_head\.(?:transformer\.)?(encoder|decoder)\.layers\.(\d+)\..+")
_CENTERNESS = ("bbox_head.0.atss_centerness", "dense_head.head.quality")
_HEADS = 2  # region head and dense head, whose positives become queries
_SWIN = ((2, 2, 6, 2), (2, 2, 18, 2))  # blocks per stage, smaller networks first
_SWIN_BLOCK = re.compile(r"backbone\.layers\.(\d)\.blocks\.(\d+)\..+")


def co_deformable_detr(state: list[str]) -> Iterator[Pair]:
    """Yield the names of all weights of a Co-Deformable-DETR.

    Args:
        state: names in a state dict, published or ours. They tell the backbone (a ResNet or a
            Swin transformer), the numbers of layers, and whether there is a centerness branch.
    """
    yield from _shared_parts(state, num_maps=3)
    yield from _deformable_queries()


def co_dino(state: list[str]) -> Iterator[Pair]:
    """Yield the names of all weights of a Co-DINO.

    Args:
        state: names in a state dict, as of `co_deformable_detr`.
    """
    yield from _shared_parts(state, num_maps=4)
    yield from _dino_queries()


def _shared_parts(state: list[str], num_maps: int) -> Iterator[Pair]:
    """Yield all names but those that tell how queries are made.

    Args:
        state: names in a state dict, published or ours.
        num_maps: number of maps of the backbone that the neck takes, the last ones.
    """
    is_swin = any(map(_SWIN_BLOCK.fullmatch, state))
    yield from _swin(state, num_maps) if is_swin else resnet(state, "backbone")
    yield from _neck(num_maps)
    layers = {"encoder": 1, "decoder": 1}
    for match in filter(None, map(_LAYER.fullmatch, state)):
        layers[match[1]] = max(layers[match[1]], int(match[2]) + 1)
    yield f"{_TRANSFORMER}.level_embeds", "query_head.encoder.level_embed"
    for i in range(layers["encoder"]):
        yield from _encoder_layer(f"encoder.layers.{i}")
    for i in range(layers["decoder"]):
        yield from _decoder_layer(f"decoder.layers.{i}")
    yield from _proposals_and_downsampling()
    yield from _branches(layers["decoder"] + 1)  # the last one is for the proposals of the encoder
    yield from rpn()
    yield from box_head("roi_head.0.bbox_head")
    yield from _dense_head(num_levels=num_maps + 2)
    if any(name.startswith(_CENTERNESS) for name in state):
        yield from module(*_CENTERNESS)


def _swin(state: list[str], num_maps: int) -> Iterator[Pair]:
    """Yield the names of a Swin transformer whose last stages are used; both are the same."""
    blocks = [0, 0, 0, 0]
    for match in filter(None, map(_SWIN_BLOCK.fullmatch, state)):
        stage = int(match[1])
        if stage in range(4):
            blocks[stage] = max(blocks[stage], int(match[2]) + 1)
    norms = [f"norm{stage}" for stage in range(4 - num_maps, 4)]
    affine = ["patch_embed.proj", "patch_embed.norm", *norms]
    names = []
    for stage, depth in enumerate(smallest_network(_SWIN, blocks)):
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            affine += [f"{prefix}.{name}" for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")]
            affine += [f"{prefix}.attn.qkv", f"{prefix}.attn.proj"]
            names += [f"{prefix}.attn.relative_position_{kind}" for kind in ("bias_table", "index")]
        if stage < 3:
            affine.append(f"layers.{stage}.downsample.norm")
            names.append(f"layers.{stage}.downsample.reduction.weight")
    names += [f"{name}.{tensor}" for name in affine for tensor in ("weight", "bias")]
    yield from ((f"backbone.{name}", f"backbone.{name}") for name in names)


def _neck(num_maps: int) -> Iterator[Pair]:
    for i in range(num_maps):
        yield from module(f"neck.convs.{i}.conv", f"neck.convs.{i}", WEIGHT)
        yield from module(f"neck.convs.{i}.gn", f"neck.convs.{i}.norm")
    yield from module("neck.extra_convs.0.conv", "neck.extra.0", WEIGHT)
    yield from module("neck.extra_convs.0.gn", "neck.extra.0.norm")


def _encoder_layer(layer: str) -> Iterator[Pair]:
    published, ours = f"{_TRANSFORMER}.{layer}", f"query_head.{layer}"
    yield from _deformable_attention(f"{published}.attentions.0", f"{ours}.attn")
    yield from _ffn_and_norms(published, ours, norms=2)


def _decoder_layer(layer: str) -> Iterator[Pair]:
    published, ours = f"{_TRANSFORMER}.{layer}", f"query_head.{layer}"
    tensors = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    yield from module(f"{published}.attentions.0.attn", f"{ours}.self_attn", tensors)
    yield from _deformable_attention(f"{published}.attentions.1", f"{ours}.cross_attn")
    yield from _ffn_and_norms(published, ours, norms=3)


def _deformable_attention(published: str, ours: str) -> Iterator[Pair]:
    for linear in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
        yield from module(f"{published}.{linear}", f"{ours}.{linear}")


def _ffn_and_norms(published: str, ours: str, norms: int) -> Iterator[Pair]:
    yield from module(f"{published}.ffns.0.layers.0.0", f"{ours}.ffn.linear1")
    yield from module(f"{published}.ffns.0.layers.1", f"{ours}.ffn.linear2")
    for i in range(norms):
        yield from module(f"{published}.norms.{i}", f"{ours}.norm{i + 1}")


def _proposals_and_downsampling() -> Iterator[Pair]:
    for name in ("enc_output", "enc_output_norm"):
        yield from module(f"{_TRANSFORMER}.{name}", f"query_head.{name}")
    for i in range(2):
        yield from module(f"query_head.downsample.{i}", f"query_head.downsample.{i}")


def _deformable_queries() -> Iterator[Pair]:
    for name in ("pos_trans", "pos_trans_norm"):
        yield from module(f"{_TRANSFORMER}.{name}", f"query_head.{name}")
    yield "query_head.query_embedding.weight", "query_head.content.weight"
    yield f"{_TRANSFORMER}.head_pos_embed.weight", "query_head.custom.head_bias"
    yield from _custom_queries(
        aux_pos_trans="pos_trans",
        aux_pos_trans_norm="pos_trans_norm",
        pos_feats_trans="feat_trans",
        pos_feats_norm="feat_norm",
    )


def _dino_queries() -> Iterator[Pair]:
    for i in range(2):  # linear layers, with a ReLU in between
        ours = f"query_head.decoder.ref_point_head.layers.{i}"
        yield from module(f"{_TRANSFORMER}.decoder.ref_point_head.{2 * i}", ours)
    yield from module(f"{_TRANSFORMER}.decoder.norm", "query_head.decoder.norm")
    yield f"{_TRANSFORMER}.query_embed.weight", "query_head.content.weight"
    labels = "label_embedding.weight"
    yield f"query_head.{labels}", f"query_head.denoising.{labels}"
    yield from _custom_queries(aux_pos_trans="pos_trans", aux_pos_trans_norm="pos_trans_norm")


def _custom_queries(**renamed: str) -> Iterator[Pair]:
    """Yield the names of the embeddings of both heads, from published to our names of layers."""
    for published, ours in renamed.items():
        for head in range(_HEADS):
            embedding = f"query_head.custom.embeddings.{head}.{ours}"
            yield from module(f"{_TRANSFORMER}.{published}.{head}", embedding)


def _branches(count: int) -> Iterator[Pair]:
    for i in range(count):
        yield from module(f"query_head.cls_branches.{i}", f"query_head.class_branches.{i}")
        for j in range(3):  # linear layers, with a ReLU after the first two
            ours = f"query_head.box_branches.{i}.layers.{j}"
            yield from module(f"query_head.reg_branches.{i}.{2 * j}", ours)


def _dense_head(num_levels: int) -> Iterator[Pair]:
    ours = "dense_head.head"
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        yield from module(f"bbox_head.0.{branch}.0.conv", f"{ours}.{tower}.0", WEIGHT)
        yield from module(f"bbox_head.0.{branch}.0.gn", f"{ours}.{tower}.0.norm")
    yield from module("bbox_head.0.atss_cls", f"{ours}.cls_logits")
    yield from module("bbox_head.0.atss_reg", f"{ours}.bbox_pred")
    for level in range(num_levels):
        yield f"bbox_head.0.scales.{level}.scale", f"{ours}.scales.{level}.scale"


def _head_bias_warning(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Published Co-DETRs embed a head in one number, by mistake, or in one per channel."""
    bias = weights.get("query_head.custom.head_bias")
    if bias is not None and bias.shape[1] > 1:
        yield f"it embeds its heads: set model.query_head.head_bias_dim={bias.shape[1]}"


register_architecture(
    Architecture(
        "co_deformable_detr",
        co_deformable_detr,
        ("query_head.query_embedding.weight", "query_head.custom.head_bias"),
        title="Co-Deformable-DETR",
        warnings=_head_bias_warning,
    )
)
register_architecture(
    Architecture(
        "co_dino",
        co_dino,
        (f"{_TRANSFORMER}.query_embed.weight", "query_head.denoising.label_embedding.weight"),
        title="Co-DINO",
    )
)
