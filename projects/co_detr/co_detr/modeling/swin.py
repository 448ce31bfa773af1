"""Swin transformers as backbones of detectors (Liu et al., ICCV 2021)."""

from collections.abc import Sequence

import torch
from detectron2.modeling.backbone.swin import SwinTransformer
from torchvision.ops import StochasticDepth


class Swin(SwinTransformer):
    """detectron2's `SwinTransformer` with torchvision's stochastic depth, for images of any size.

    Stage i yields the map `p{i}` of stride 4 * 2^i, normalized by its own `norm{i}`.

    Args:
        embed_dim: channels of the first stage; each further stage has twice as many.
        depths: number of blocks per stage.
        num_heads: number of attention heads per stage.
        window_size: side of the attention windows in cells; maps are padded to whole windows.
        drop_path_rate: probability, in [0, 1), that the last block drops a residual branch for an
            image; linear from 0 for the first block. Branches that are kept are scaled up, so that
            the mean stays the same.
        out_indices: indices of the stages to return.

    Raises:
        ValueError: `drop_path_rate` is not in [0, 1).
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (1, 2, 3),
    ) -> None:
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")
        # detectron2's own stochastic depth needs timm.
        super().__init__(
            embed_dim=embed_dim,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            drop_path_rate=0.0,
            out_indices=tuple(out_indices),
        )
        blocks = [block for layer in self.layers for block in layer.blocks]
        rates = torch.linspace(0, drop_path_rate, len(blocks)).tolist()
        for block, rate in zip(blocks, rates, strict=True):
            block.drop_path = StochasticDepth(rate, mode="row")

    @property
    def size_divisibility(self) -> int:
        """0, since every layer pads its own input."""
        return 0
