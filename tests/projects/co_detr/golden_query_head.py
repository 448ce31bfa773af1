"""Small query head of the golden files of Co-DETR, and its weights under our names."""

import re

from torch import Tensor

from brloss_d2.projects.co_detr.modeling.decoder import DeformableDecoder
from brloss_d2.projects.co_detr.modeling.encoder import DeformableEncoder
from brloss_d2.projects.co_detr.modeling.query_head import CoDeformableHead
from tests.helpers.golden_models import Golden
from tests.projects.co_detr.golden_co_detr import SIZES, decoder_state, encoder_state, part

CLASSES = 5
QUERIES = 30

_RENAMED = [
    (r"transformer\.((?:enc_output|pos_trans)(?:_norm)?\.)", r"\1"),
    (r"transformer\.head_pos_embed\.weight", "custom.head_bias"),
    (r"transformer\.aux_(pos_trans|pos_trans_norm)\.(\d)", r"custom.embeddings.\2.\1"),
    (r"transformer\.pos_feats_(trans|norm)\.(\d)", r"custom.embeddings.\2.feat_\1"),
    (r"query_embedding", "content"),
    (r"cls_branches", "class_branches"),
    (r"reg_branches\.(\d)\.0", r"box_branches.\1.layers.0"),
    (r"reg_branches\.(\d)\.2", r"box_branches.\1.layers.1"),
    (r"reg_branches\.(\d)\.4", r"box_branches.\1.layers.2"),
]
_ELSEWHERE = ("transformer.encoder.", "transformer.decoder.", "transformer.level_embeds")


def small_query_head(**settings) -> CoDeformableHead:
    """Query head with the sizes of the files."""
    settings = {"num_classes": CLASSES, "num_queries": QUERIES} | settings
    return CoDeformableHead(
        encoder=DeformableEncoder(**SIZES, num_layers=2),
        decoder=DeformableDecoder(**SIZES, num_layers=3),
        **settings,
    )


def query_head_state(golden: Golden) -> dict[str, Tensor]:
    """State dict of the `CoDeformableHead`, including its encoder."""
    state = {f"encoder.{name}": x for name, x in encoder_state(golden).items()}
    state |= {f"decoder.{name}": x for name, x in decoder_state(golden).items()}
    for name, x in part(golden, "query_head.").items():
        if not name.startswith(_ELSEWHERE):
            state[_renamed(name)] = x
    return state


def golden_query_head(golden: Golden) -> CoDeformableHead:
    """Small head with the weights of the file, all of which have to fit."""
    head = small_query_head()
    head.load_state_dict(query_head_state(golden))
    return head


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
