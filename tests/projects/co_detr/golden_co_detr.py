"""Golden files of Co-DETR: weights under our names, and inputs of the transformer."""

import re

from torch import Tensor

from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from tests.helpers.golden_models import Golden, available

NAMES = available("brs_detr", "brs_detr_equal_sizes", "co_deformable_detr")
LEVELS = range(4)
# Sizes of the small transformer in the files.
SIZES = {"dim": 32, "num_heads": 4, "num_levels": 4, "num_points": 4, "ffn_dim": 64}

_RENAMED = [
    (r"attentions\.0\.attn\.", "self_attn."),
    (r"ffns\.0\.layers\.0\.0\.", "ffn.linear1."),
    (r"ffns\.0\.layers\.1\.", "ffn.linear2."),
    (r"norms\.(\d)\.", lambda match: f"norm{int(match[1]) + 1}."),
]


def part(golden: Golden, prefix: str) -> dict[str, Tensor]:
    """Weights whose published names begin with `prefix`, by the rest of the name."""
    names = golden.keys(f"param/{prefix}")
    return {name.removeprefix(f"param/{prefix}"): golden.tensor(name) for name in names}


def encoder_state(golden: Golden) -> dict[str, Tensor]:
    """State dict of the `DeformableEncoder`."""
    layers = part(golden, "query_head.transformer.encoder.")
    state = {_renamed(name).replace("attentions.0.", "attn."): x for name, x in layers.items()}
    return state | {"level_embed": golden.tensor("param/query_head.transformer.level_embeds")}


def decoder_state(golden: Golden) -> dict[str, Tensor]:
    """State dict of the decoder layers: `layers.0.self_attn.in_proj_weight`, ..."""
    layers = part(golden, "query_head.transformer.decoder.")
    return {_renamed(name).replace("attentions.1.", "cross_attn."): x for name, x in layers.items()}


def neck_state(golden: Golden) -> dict[str, Tensor]:
    """State dict of the `ChannelMapper`."""
    renamed = {}
    for name, x in part(golden, "neck.").items():
        name = name.replace("extra_convs.", "extra.").replace(".conv.", ".")
        renamed[name.replace(".gn.", ".norm.")] = x
    return renamed


def maps(golden: Golden, stem: str) -> list[Tensor]:
    """Maps of all levels of the neck, finest first, e.g. with stem "neck/p"."""
    return [golden.tensor(f"{stem}{level}") for level in LEVELS]


def geometry(golden: Golden) -> FeatureGeometry:
    sizes = [tuple(size) for size in golden.tensor("input/image_hw").tolist()]
    batch = tuple(golden.tensor("input/batch_hw").tolist())
    return FeatureGeometry.build(maps(golden, "neck/p"), sizes, batch)


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
