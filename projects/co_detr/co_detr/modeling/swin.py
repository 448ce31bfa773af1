"""Swin transformers as backbones of detectors (Liu et al., ICCV 2021)."""

from collections.abc import Sequence

import torch
from detectron2.modeling.backbone.swin import SwinTransformer
from torchvision.ops import StochasticDepth


class Swin(SwinTransformer):
    """detectron2's `SwinTransformer` with torchvision's stochastic depth, for images of any size.

    Stage i gives the map `p{i}` of stride 4 * 2^i; each has a normalization of its own, `norm{i}`.

    Args:
        embed_dim: channels of the first stage; each further stage has twice as many.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window_size: side of the attention windows in cells. Maps are padded to whole windows.
        drop_path_rate: how often the last block leaves out a branch for an image of the batch, in
            [0, 1); linear from 0 for the first block. What is kept is scaled up to the same mean.
        out_indices: stages to give.
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
    ):
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
        """None is needed: every layer pads its input."""
        return 0
