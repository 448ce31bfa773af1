"""Names of the published Co-Deformable-DETR and BRS-DETR beside those of `projects/co_detr`."""

import re
from collections.abc import Iterable, Iterator

from brloss_d2.checkpoint.mmdetection_parts import (
    Pair,
    box_head,
    conv,
    is_swin,
    module,
    resnet,
    rpn,
    swin,
)

_TRANSFORMER = "query_head.transformer"
_LAYER = re.compile(r"query_head\.(?:transformer\.)?(encoder|decoder)\.layers\.(\d+)\..+")
_CENTERNESS = ("bbox_head.0.atss_centerness", "dense_head.head.quality")
_HEADS = 2  # that make queries of their positives: region head, dense head


def co_deformable_detr(state: Iterable[str]) -> Iterator[Pair]:
    """The names of all weights.

    Args:
        state: names of the state dict, published or ours. They tell the backbone (a ResNet or a
            Swin transformer), the numbers of layers, and whether there is a centerness branch.
    """
    state = list(state)
    yield from swin(state) if is_swin(state) else resnet(state, "backbone")
    yield from _neck()
    encoder_layers, decoder_layers = _num_layers(state, "encoder"), _num_layers(state, "decoder")
    yield f"{_TRANSFORMER}.level_embeds", "query_head.encoder.level_embed"
    for i in range(encoder_layers):
        yield from _encoder_layer(f"encoder.layers.{i}")
    for i in range(decoder_layers):
        yield from _decoder_layer(f"decoder.layers.{i}")
    yield from _queries()
    yield from _branches(decoder_layers + 1)  # the last one is for the proposals of the encoder
    yield from rpn()
    yield from box_head("roi_head.0.bbox_head")
    yield from _dense_head()
    if any(name.startswith(_CENTERNESS) for name in state):
        yield from module(*_CENTERNESS)


def _num_layers(state: Iterable[str], part: str) -> int:
    matches = filter(None, map(_LAYER.fullmatch, state))
    return max((int(match[2]) + 1 for match in matches if match[1] == part), default=1)


def _neck() -> Iterator[Pair]:
    for i in range(3):
        yield from conv(f"neck.convs.{i}.conv", f"neck.convs.{i}")
        yield from module(f"neck.convs.{i}.gn", f"neck.convs.{i}.norm")
    yield from conv("neck.extra_convs.0.conv", "neck.extra.0")
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


def _queries() -> Iterator[Pair]:
    for name in ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm"):
        yield from module(f"{_TRANSFORMER}.{name}", f"query_head.{name}")
    yield "query_head.query_embedding.weight", "query_head.content.weight"
    yield f"{_TRANSFORMER}.head_pos_embed.weight", "query_head.custom.head_bias"
    renamed = {
        "aux_pos_trans": "pos_trans",
        "aux_pos_trans_norm": "pos_trans_norm",
        "pos_feats_trans": "feat_trans",
        "pos_feats_norm": "feat_norm",
    }
    for published, ours in renamed.items():
        for head in range(_HEADS):
            embedding = f"query_head.custom.embeddings.{head}.{ours}"
            yield from module(f"{_TRANSFORMER}.{published}.{head}", embedding)
    for i in range(2):
        yield from module(f"query_head.downsample.{i}", f"query_head.downsample.{i}")


def _branches(count: int) -> Iterator[Pair]:
    for i in range(count):
        yield from module(f"query_head.cls_branches.{i}", f"query_head.class_branches.{i}")
        for j in range(3):  # linear layers, with a ReLU after the first two
            ours = f"query_head.box_branches.{i}.layers.{j}"
            yield from module(f"query_head.reg_branches.{i}.{2 * j}", ours)


def _dense_head() -> Iterator[Pair]:
    ours = "dense_head.head"
    for branch, tower in (("cls_convs", "cls_tower"), ("reg_convs", "box_tower")):
        yield from conv(f"bbox_head.0.{branch}.0.conv", f"{ours}.{tower}.0")
        yield from module(f"bbox_head.0.{branch}.0.gn", f"{ours}.{tower}.0.norm")
    yield from module("bbox_head.0.atss_cls", f"{ours}.cls_logits")
    yield from module("bbox_head.0.atss_reg", f"{ours}.bbox_pred")
    for level in range(5):
        yield f"bbox_head.0.scales.{level}.scale", f"{ours}.scales.{level}.scale"
