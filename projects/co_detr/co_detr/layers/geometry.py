"""Position of the images in the feature maps of a padded batch.

Shape letters: N images, L levels, H_l x W_l cells of a level, S cells of all levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from brloss_d2.utils.devices import upload

# Height and width of each level in cells.
Shapes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class FeatureGeometry:
    """Shapes and padding of the feature maps, built once per batch.

    Attributes:
        shapes: (H_l, W_l) per level.
        masks: (N, H_l, W_l) bool per level, True for padded cells.
        padding: (N, S) bool, the masks concatenated level by level.
        covered: (N, L, 2) int64 columns and rows of each level that are no padding.
        valid_ratios: (N, L, 2) float32 fractions (of the width, of the height) of each level that
            the image covers, in (0, 1].
        levels: (S,) int64 level of each cell.
        centers: (S, 2) float32 centers (x, y) of the cells, in cells of their level.
        image_sizes: (height, width) of each image in pixels.
    """

    shapes: Shapes
    masks: list[Tensor]
    padding: Tensor
    covered: Tensor
    valid_ratios: Tensor
    levels: Tensor
    centers: Tensor
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
        shapes = tuple((int(x.shape[2]), int(x.shape[3])) for x in features)  # in a trace too
        cells = [height * width for height, width in shapes]
        # All of it on the CPU: tiny operators.
        sizes = torch.tensor([list(size) for size in image_sizes])
        pixels = [
            (torch.arange(n) >= sizes[:, axis, None]).float()
            for axis, n in enumerate(batch_size_hw)
        ]
        padding, covered, centers = [], [], []
        for shape in shapes:
            rows, columns = (
                F.interpolate(x[:, None], size=n)[:, 0].bool()
                for x, n in zip(pixels, shape, strict=True)
            )
            padding.append((rows[:, :, None] | columns[:, None, :]).flatten(1))
            covered.append(torch.stack([(~columns).sum(1), (~rows).sum(1)], -1))
            y, x = (torch.arange(n) + 0.5 for n in shape)
            centers.append(torch.cartesian_prod(y, x).flip(-1))
        counts = torch.stack(covered, 1)
        tensors = dict(
            padding=torch.cat(padding, 1),
            covered=counts,
            valid_ratios=counts / torch.tensor(shapes).flip(-1),
            levels=torch.arange(len(shapes)).repeat_interleave(torch.tensor(cells)),
            centers=torch.cat(centers),
        )
        moved = {name: upload(x, features[0].device) for name, x in tensors.items()}
        masks = moved["padding"].split(cells, 1)
        return cls(
            shapes=shapes,
            masks=[x.unflatten(1, shape) for x, shape in zip(masks, shapes, strict=True)],
            image_sizes=[(int(h), int(w)) for h, w in image_sizes],
            **moved,
        )
