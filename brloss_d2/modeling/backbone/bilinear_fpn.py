"""Feature pyramid for images of any size, which are not padded."""

from collections.abc import Sequence

import torch.nn.functional as F
from detectron2.modeling.backbone import FPN, Backbone
from torch import Tensor, nn


class BilinearFPN(FPN):
    """detectron2's `FPN` with bilinear upsampling to the size of the finer map (YOLACT).

    detectron2 doubles the sizes, so that images have to be padded to multiples of the coarsest
    stride. Convolutions start from Xavier-uniform weights, as published.

    Args:
        bottom_up: backbone whose features the pyramid is built from.
        in_features: names of its features, with strides that double, finest first.
        out_channels: number of channels of all levels.
        norm: normalization, a name that detectron2's `get_norm` knows; "" is none.
        top_block: further, coarser levels; None adds none.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        *,
        norm: str = "",
        top_block: nn.Module | None = None,
    ):
        super().__init__(bottom_up, list(in_features), out_channels, norm, top_block)
        self._size_divisibility = 0
        for conv in (*self.lateral_convs, *self.output_convs):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the levels by name, p3 to p7 with `P6P7`, of images (N, 3, H, W)."""
        features = self.bottom_up(x)
        results: list[Tensor] = []
        coarser = None
        for name, lateral, output in zip(
            reversed(self.in_features), self.lateral_convs, self.output_convs, strict=True
        ):
            merged = lateral(features[name])
            if coarser is not None:
                size = merged.shape[-2:]
                merged = merged + F.interpolate(coarser, size, mode="bilinear", align_corners=False)
            results.insert(0, output(merged))
            coarser = merged
        if self.top_block is not None:
            source = self.top_block.in_feature
            own = source in self._out_features
            results += self.top_block(
                results[self._out_features.index(source)] if own else features[source]
            )
        return dict(zip(self._out_features, results, strict=True))
