"""Coarser levels on top of a feature pyramid."""

from detectron2.layers import Conv2d
from torch import Tensor, nn


class P6P7(nn.Module):
    """P6 and P7 by 3x3 convolutions with stride 2, without a non-linearity between them.

    detectron2's `LastLevelP6P7` has a ReLU there; the published ranking-loss detectors have none.

    Args:
        in_channels: number of channels of `in_feature`.
        out_channels: number of channels of both levels.
        in_feature: input of P6: "p5" (ATSS, PAA) or "res5" (RetinaNet, FoveaBox).
    """

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, in_feature: str):
        super().__init__()
        self.in_feature = in_feature
        self.p6 = Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return both levels of the input (N, C, H, W)."""
        p6 = self.p6(x)
        return [p6, self.p7(p6)]
