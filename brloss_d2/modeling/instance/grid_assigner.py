"""Objects on the grids of SOLOv2: which cells are trained towards which masks."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from brloss_d2.losses.base import check_numbers
from brloss_d2.utils.devices import upload

# Pixels of a mask per pixel of the mask features, along each side.
MASK_STRIDE = 4


class GridTargets(NamedTuple):
    """Targets of the cells of one image, which are counted level by level and row by row.

    P cells are positive. They are trained towards E masks: E is P where no cell has two.

    Attributes:
        cells: (P,) int64 positive cells, ascending.
        owners: (P,) int64 object whose class is the label of each positive cell.
        mask_cells: (E,) int64 cell that predicts each mask; masks are in the order level, object,
            cell.
        mask_objects: (E,) int64 object of each mask.
        mask_rows: (E,) int64 index in `cells`, the cell whose quality each mask tells and whose
            score weights it.
    """

    cells: Tensor
    owners: Tensor
    mask_cells: Tensor
    mask_objects: Tensor
    mask_rows: Tensor

    @staticmethod
    def cat(
        targets: Sequence["GridTargets"], *, num_cells: int, num_objects: Sequence[int]
    ) -> "GridTargets":
        """Concatenate images; cells, objects and rows are counted on from image to image.

        Args:
            targets: targets of each image.
            num_cells: number of cells of an image.
            num_objects: number of objects of each image.
        """
        cells = [i * num_cells for i in range(len(targets))]
        objects = list(accumulate([0, *num_objects[:-1]]))
        rows = accumulate([0, *(len(t.cells) for t in targets[:-1])])
        moved = [
            [index + start for index, start in zip(fields, starts, strict=True)]
            for fields, *starts in zip(targets, cells, objects, cells, objects, rows, strict=True)
        ]
        return GridTargets(*(torch.cat(parts) for parts in zip(*moved, strict=True)))


class GridAssigner:
    """Assign objects to the cells around their centers of mass (SOLOv2, Wang et al., NeurIPS 2020).

    A level takes the objects whose size, the square root of the area of their box, is in its range.
    Their cells are those that a region around the center of mass meets, whose sides are a fraction
    of the box's, but at most one cell to each side of the center. An object with an empty mask has
    none.

    Args:
        grid_sizes: number of cells per side, per level.
        scale_ranges: smallest and largest size of an object in pixels, per level, both included.
        center_fraction: sides of the region around the center, as a fraction of the box's.
        first_wins: whether a cell belongs to the first object that claims it (Oksuz et al., ICCV
            2021); else it is trained towards the masks of all of them and has the class of the
            last.
        published_order: whether the values of the masks are handed to the cells of a level and
            image in the order of the objects instead of each to its own cell, as in the published
            code of RS-SOLOv2: quality and weight then come from another mask wherever objects
            share a level. To compare with it only.

    Raises:
        ValueError: If an argument is out of range, the levels differ in number, or
            `published_order` comes without `first_wins`.
    """

    def __init__(
        self,
        grid_sizes: Sequence[int],
        scale_ranges: Sequence[tuple[float, float]],
        *,
        center_fraction: float = 0.2,
        first_wins: bool = True,
        published_order: bool = False,
    ):
        check_numbers(">= 0", center_fraction=center_fraction)
        check_numbers(">= 1", **{f"grid_sizes[{i}]": size for i, size in enumerate(grid_sizes)})
        if not all(isinstance(x, Sequence) and len(x) == 2 for x in scale_ranges):
            raise ValueError(f"scale_ranges must be pairs of sizes, got {list(scale_ranges)}")
        if len(grid_sizes) != len(scale_ranges):
            raise ValueError(
                f"expected one scale range for each of {len(grid_sizes)} grids, got "
                f"{len(scale_ranges)}"
            )
        if published_order and not first_wins:
            raise ValueError("published_order needs first_wins: cells with one mask each")
        self.grid_sizes = list(grid_sizes)
        self.scale_ranges = [tuple(x) for x in scale_ranges]
        self.center_fraction = center_fraction
        self.first_wins, self.published_order = first_wins, published_order

    @torch.no_grad()
    def __call__(self, boxes: Tensor, masks: Tensor, canvas: tuple[int, int]) -> GridTargets:
        """Assign the objects of one image.

        Args:
            boxes: (G, 4) boxes of the objects, XYXY in pixels.
            masks: (G, H, W) bool masks of the objects.
            canvas: height and width in pixels that the grids cover, padding included.
        """
        cells, owners = self._claims(boxes, masks, canvas)
        positive, rows = cells.unique(return_inverse=True)
        rule = "amin" if self.first_wins else "amax"
        labels = torch.zeros_like(positive)
        labels.scatter_reduce_(0, rows, owners, rule, include_self=False)
        if self.first_wins:
            # One claim of each cell: the first one, since they are in the order of the objects.
            claims = torch.arange(len(rows), device=rows.device)
            first = torch.full_like(positive, len(rows)).scatter_reduce_(0, rows, claims, "amin")
            kept = first.sort().values
            cells, owners, rows = cells[kept], owners[kept], rows[kept]
        if self.published_order:
            rows = torch.arange(len(rows), device=rows.device)
        return GridTargets(positive, labels, cells, owners, rows)

    def _claims(
        self, boxes: Tensor, masks: Tensor, canvas: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return cells and objects of all claims, by level, object and cell."""
        grids = upload(torch.tensor(self.grid_sizes), boxes.device)
        per_side = grids.double()[:, None, None]
        extent = upload(torch.tensor(canvas, dtype=torch.float64), boxes.device)

        def cell(position: Tensor) -> Tensor:
            """(L, G, 2) row and column of (G, 2) positions."""
            return ((position / extent) / (1 / per_side)).floor()

        centers, found = mask_centers(masks)
        sides = (boxes[:, 2:] - boxes[:, :2]).flip(1)  # height, width
        margins = 0.5 * self.center_fraction * sides.double()
        center = cell(centers)
        first = torch.maximum(cell(centers - margins).clamp(min=0), center - 1)
        last = torch.minimum(cell(centers + margins), center + 1).minimum(per_side - 1)

        ranges = upload(torch.tensor(self.scale_ranges), boxes.device)
        lowest, highest = ranges.T[..., None]
        sizes = sides.prod(1).sqrt()
        takes = (lowest <= sizes) & (sizes <= highest) & found
        # The three rows and columns around the center, of which the region meets some.
        near = center[..., None] + torch.arange(-1, 2, device=boxes.device)
        meets = (first[..., None] <= near) & (near <= last[..., None])
        claims = meets[:, :, 0, :, None] & meets[:, :, 1, None, :] & takes[..., None, None]
        level, owner, down, right = claims.nonzero(as_tuple=True)
        row, column = near[level, owner, 0, down].long(), near[level, owner, 1, right].long()
        starts = grids.square().cumsum(0) - grids.square()
        return starts[level] + row * grids[level] + column, owner


def mask_centers(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the centers of mass of masks.

    Args:
        masks: (G, H, W) bool.

    Returns:
        (G, 2) float64 mean row and mean column of the pixels, and (G,) bool, which masks have any;
        the others have the center 0.
    """
    rows, columns = (torch.arange(n, device=masks.device).double() for n in masks.shape[1:])
    totals = torch.zeros(len(masks), 3, dtype=torch.float64, device=masks.device)
    for i, mask in enumerate(masks):  # one by one: a sum over all of them would copy them
        pixels = mask.double()
        in_rows, in_columns = pixels @ torch.ones_like(columns), torch.ones_like(rows) @ pixels
        sums = [(in_rows * rows).sum(), (in_columns * columns).sum(), in_rows.sum()]
        totals[i] = torch.stack(sums)
    areas = totals[:, 2:]
    return totals[:, :2] / areas.clamp(min=1), areas[:, 0] > 0


def quarter_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Reduce masks to a quarter of their size, at the top left of a map of the given size.

    A pixel is set if at least two of the four pixels in the middle of its 4x4 block are. That is
    what OpenCV's bilinear resizing of bytes gives where the sides are multiples of 4.

    Args:
        masks: (G, H, W) bool.
        size: height and width of the result.

    Returns:
        (G, *size) bool.
    """
    counts = torch.zeros(len(masks), *size, dtype=torch.uint8, device=masks.device)
    for top in (1, 2):
        for left in (1, 2):
            part = masks[:, top::MASK_STRIDE, left::MASK_STRIDE]
            counts[:, : part.shape[1], : part.shape[2]] += part
    return counts >= 2
