"""Head of YOLACT: one convolution tower for classes, boxes and mask coefficients."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from detectron2.layers import Conv2d
from torch import Tensor, nn

from brloss_d2.modeling.one_stage.head import DenseOutputs, conv_tower


class CoefficientOutputs(NamedTuple):
    """Outputs of a `CoefficientHead`.

    Attributes:
        dense: class logits and encoded boxes.
        coefficients: (N, A C, H, W) mask coefficients in (-1, 1) per level, channels in the order
            anchor, prototype.
    """

    dense: DenseOutputs
    coefficients: list[Tensor]


class CoefficientHead(nn.Module):
    """A tower shared by all levels, and a 3x3 convolution for each of its three outputs.

    Bolya et al., ICCV 2019, section 3.

    Args:
        in_channels: number of channels of the features.
        num_classes: number of foreground classes, K.
        num_anchors: number of anchors per cell, A.
        num_prototypes: number of mask coefficients per anchor, C.
        conv_dims: numbers of channels of the convolutions of the tower.
        norm: normalization of the tower, a name that detectron2's `get_norm` knows; "" is none.
        has_background: whether a further class output of each anchor is the background; only for
            criteria that ask for it.
        prior_prob: score at the start of training, in (0, 1); 0.5 is published, and goes with a
            background class and with ranking losses.
    """

    has_quality = False

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_anchors: int = 3,
        num_prototypes: int = 32,
        conv_dims: Sequence[int] = (256,),
        norm: str = "",
        has_background: bool = False,
        prior_prob: float = 0.5,
    ):
        super().__init__()
        self.num_classes, self.has_background = num_classes, has_background
        self.num_prototypes = num_prototypes
        self.tower = conv_tower(in_channels, tuple(conv_dims), norm)
        width = [in_channels, *conv_dims][-1]
        num_logits = num_classes + has_background
        self.cls_logits = Conv2d(width, num_anchors * num_logits, 3, padding=1)
        self.bbox_pred = Conv2d(width, num_anchors * 4, 3, padding=1)
        self.mask_coefficients = Conv2d(width, num_anchors * num_prototypes, 3, padding=1)
        for conv in (*self.tower, self.cls_logits, self.bbox_pred, self.mask_coefficients):
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: list[Tensor]) -> CoefficientOutputs:
        """Predict from feature maps (N, `in_channels`, H, W), one per level."""
        towers = [self.tower(x) for x in features]
        return CoefficientOutputs(
            DenseOutputs([self.cls_logits(x) for x in towers], [self.bbox_pred(x) for x in towers]),
            [self.mask_coefficients(x).tanh() for x in towers],
        )
