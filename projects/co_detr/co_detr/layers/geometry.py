"""Position of the images in the feature maps of a padded batch.

Shape letters: N images, L levels, H_l x W_l cells of a level, S cells of all levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Height and width of each level in cells.
Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class FeatureGeometry:
    """Shapes and padding of the feature maps, built once per batch.

    Attributes:
        shapes: (H_l, W_l) per level.
        masks: (N, H_l, W_l) bool per level, True for padded cells.
        padding: (N, S) bool, the masks concatenated level by level.
        valid_ratios: (N, L, 2) float32 fractions (of the width, of the height) of each level that
            the image covers, in (0, 1].
        image_sizes: (height, width) of each image in pixels.
    """

    shapes: Shapes
    masks: list[Tensor]
    padding: Tensor
    valid_ratios: Tensor
    image_sizes: list[tuple[int, int]]

    @classmethod
    def build(
        cls,
        features: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        batch_size_hw: tuple[int, int],
    ) -> "FeatureGeometry":
        """Interpolate the padding of the pixels to the feature maps, by nearest neighbors.

        The result may differ by one row or column from the ceiling of size / stride.

        Args:
            features: (N, C, H_l, W_l) map per level.
            image_sizes: (height, width) of each image in pixels.
            batch_size_hw: height and width of the padded batch in pixels.
        """
        device = features[0].device
        sizes = torch.tensor([list(size) for size in image_sizes], device=device)
        shapes = tuple((int(x.shape[2]), int(x.shape[3])) for x in features)  # in a trace too
        pixels = [
            (torch.arange(n, device=device) >= sizes[:, axis, None]).float()
            for axis, n in enumerate(batch_size_hw)
        ]
        masks, ratios = [], []
        for shape in shapes:
            rows, columns = (
                F.interpolate(x[:, None], size=n)[:, 0].bool()
                for x, n in zip(pixels, shape, strict=True)
            )
            masks.append(rows[:, :, None] | columns[:, None, :])
            ratios.append(torch.stack([(~x).float().mean(1) for x in (columns, rows)], dim=-1))
        return cls(
            shapes=shapes,
            masks=masks,
            padding=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            valid_ratios=torch.stack(ratios, dim=1),
            image_sizes=[(int(h), int(w)) for h, w in image_sizes],
        )
