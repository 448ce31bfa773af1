"""Co-DINO with a ResNet-50 and five scales: what differs from Co-Deformable-DETR.

`losses.py` sets the criteria, their weights and what they train on.
"""

from detectron2.config import LazyCall as L
from omegaconf import MISSING
from torch import nn

from brloss_d2.projects.co_detr.modeling.decoder import BoxPositions
from brloss_d2.projects.co_detr.modeling.denoising import DenoisingQueries
from brloss_d2.projects.co_detr.modeling.query_head import CoDINOHead
from brloss_d2.projects.co_detr.modeling.soft_nms import SoftNMS

from .co_deformable_detr import model


def use_dino(model):
    """Turn a Co-Deformable-DETR into a Co-DINO with the same scales."""
    head = model.query_head
    head.encoder.update(temperature=20.0, offset=0.0, num_recomputed=0)
    head.decoder.update(
        ref_point_head=L(BoxPositions)(dim="${..dim}"),
        norm=L(nn.LayerNorm)(normalized_shape="${..dim}"),
        reference_eps=1e-3,
        num_recomputed=0,
    )
    model.query_head = L(CoDINOHead)(
        encoder=head.encoder,
        decoder=head.decoder,
        denoising=L(DenoisingQueries)(
            num_classes="${..num_classes}",
            dim="${...neck.out_channels}",
            num_queries=100,
            label_noise=0.25,
            box_noise=1.0,
        ),
        num_classes=head.num_classes,
        num_queries=head.num_queries,
        prior_prob=head.prior_prob,
    )
    model.query_losses.update(denoising=MISSING, classless_proposals=False)
    model.update(
        suppression=L(SoftNMS)(iou_threshold=0.8, min_score=1e-3),
        canvas_size=None,
        recompute_backbone=False,
    )


_STRIDES = [4, 8, 16, 32, 64, 128]
_LEVELS = ["p2", "p3", "p4", "p5", "p6", "p7"]

use_dino(model)
model.query_head.num_queries = 900
# As published: less memory, but the same losses.
model.query_head.encoder.num_recomputed = 4
model.max_detections = 300
model.backbone.out_features = ["res2", "res3", "res4", "res5"]
model.neck.update(
    input_shapes=[256, 512, 1024, 2048], in_features=["res2", "res3", "res4", "res5"], num_outs=5
)
model.proposal_generator.in_features = _LEVELS
model.proposal_generator.anchor_generator.update(
    sizes=[[4 * x * 2 ** (i / 3) for i in range(3)] for x in _STRIDES], strides=_STRIDES
)
model.roi_heads.box_in_features = _LEVELS[:5]
model.roi_heads.box_pooler.update(
    scales=[1 / x for x in _STRIDES[:5]], canonical_box_size=56, canonical_level=2
)
model.dense_head.head.num_scaled_levels = 6
model.dense_head.anchor_generator.update(sizes=[[8 * x] for x in _STRIDES], strides=_STRIDES)
