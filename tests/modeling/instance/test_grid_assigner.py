"""Objects on the grids of SOLOv2: worked examples, and what the published code stumbles over."""

import pytest
import torch
from torch import Tensor

from brloss_d2.modeling.instance.grid_assigner import (
    GridAssigner,
    GridTargets,
    mask_centers,
    quarter_masks,
)

CANVAS = (128, 128)
BOXES = [[20, 24, 84, 72], [40, 40, 72, 64], [4, 100, 60, 124], [100, 8, 124, 120]]


def scene() -> tuple[Tensor, Tensor]:
    """Four objects; the first lacks the part of its mask around the second."""
    boxes, masks = full(BOXES)
    masks[0, 24:48, 20:52] = False
    return boxes, masks


def full(boxes: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Boxes, and masks that fill them."""
    masks = torch.zeros(len(boxes), *CANVAS, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return torch.tensor(boxes).float().view(-1, 4), masks


def assigner(**options) -> GridAssigner:
    return GridAssigner([12, 6], [(1, 48), (24, 96)], **options)


def entries(targets: GridTargets) -> list[tuple[int, int, int, int]]:
    """Level, row, column and object of each mask."""
    found = []
    for cell, owner in zip(targets.mask_cells.tolist(), targets.mask_objects.tolist(), strict=True):
        level, cell, side = (0, cell, 12) if cell < 144 else (1, cell - 144, 6)
        found.append((level, cell // side, cell % side, owner))
    return found


FINE = [(0, 4, 4, 1), (0, 4, 5, 1), (0, 5, 4, 1), (0, 5, 5, 1), (0, 10, 2, 2), (0, 10, 3, 2)]


def test_centers_of_mass():
    centers, found = mask_centers(scene()[1])
    expected = [(51.5, 56 + 5 / 6), (51.5, 55.5), (111.5, 31.5), (63.5, 111.5)]
    torch.testing.assert_close(centers, torch.tensor(expected, dtype=torch.float64))
    assert found.all()


def test_the_first_object_keeps_its_cells():
    targets = assigner()(*scene(), CANVAS)
    coarse = [(1, 2, 2, 0), (1, 5, 1, 2), (1, 2, 5, 3), (1, 3, 5, 3)]
    assert entries(targets) == FINE + coarse
    assert torch.equal(targets.cells[targets.mask_rows], targets.mask_cells)
    assert torch.equal(targets.owners[targets.mask_rows], targets.mask_objects)
    assert len(targets.cells) == 10


def test_all_objects_keep_their_masks_and_the_last_its_class():
    targets = assigner(first_wins=False)(*scene(), CANVAS)
    coarse = [(1, 2, 2, 0), (1, 2, 2, 1), (1, 5, 1, 2), (1, 2, 5, 3), (1, 3, 5, 3)]
    assert entries(targets) == FINE + coarse
    assert torch.equal(targets.cells[targets.mask_rows], targets.mask_cells)
    assert len(targets.cells) == 10
    (shared,) = (targets.cells == 144 + 2 * 6 + 2).nonzero().squeeze(1)
    assert targets.owners[shared] == 1


def test_published_order():
    """Three of the four masks of the coarse level tell the quality of another's cell."""
    right, published = (assigner(published_order=x)(*scene(), CANVAS) for x in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(right[:4], published[:4], strict=True))
    astray = published.cells[published.mask_rows] != published.mask_cells
    assert astray.tolist() == [False] * 7 + [True] * 3
    assert published.mask_rows.tolist() == list(range(10))


@pytest.mark.parametrize("first_wins", [True, False])
def test_no_objects(first_wins):
    targets = assigner(first_wins=first_wins)(*full([]), CANVAS)
    assert [len(x) for x in targets] == [0] * 5


def test_images_of_a_batch():
    """Cells, objects and rows are those of the image, counted on."""
    images = [scene(), full([]), scene()]
    targets = [assigner(first_wins=False)(*image, CANVAS) for image in images]
    whole = GridTargets.cat(targets, num_cells=180, num_objects=[4, 0, 4])
    first, second = ([x[: len(x) // 2] for x in whole], [x[len(x) // 2 :] for x in whole])
    assert all(torch.equal(a, b) for a, b in zip(first, targets[0], strict=True))
    starts = (360, 4, 360, 4, len(targets[0].cells))
    for found, own, start in zip(second, targets[2], starts, strict=True):
        assert torch.equal(found, own + start)


def test_objects_without_pixels_are_skipped():
    """The published code crashes on a level that has no others."""
    boxes, masks = scene()
    masks[1:3] = False
    found = entries(assigner()(boxes, masks, CANVAS))
    assert {owner for *_, owner in found} == {0, 3}
    assert all(level == 1 for level, *_ in found)


def test_an_object_whose_cells_are_taken():
    found = entries(assigner()(*full([[40, 40, 72, 72], [40, 40, 72, 72]]), CANVAS))
    assert {owner for *_, owner in found} == {0}


def test_both_ends_of_a_range_are_included():
    rule = GridAssigner([6, 6, 6], [(1, 15), (16, 24), (24, 48)])
    targets = rule(*full([[40, 40, 56, 56], [80, 80, 104, 104]]), CANVAS)
    levels = (targets.mask_cells // 36).tolist()
    found = set(zip(levels, targets.mask_objects.tolist(), strict=True))
    assert found == {(1, 0), (1, 1), (2, 1)}


def test_at_most_nine_cells_around_the_center():
    rule = GridAssigner([32], [(1, 200)], center_fraction=1.0)
    targets = rule(*full([[0, 0, 128, 128]]), CANVAS)
    cells = [(cell // 32, cell % 32) for cell in targets.cells.tolist()]
    assert cells == [(row, column) for row in (14, 15, 16) for column in (14, 15, 16)]


def test_cells_end_with_the_grid():
    targets = assigner()(*full([[0, 0, 8, 8], [120, 120, 128, 128]]), CANVAS)
    assert targets.cells.tolist() == [0, 143]


def test_three_hundred_objects():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 100, (300, 2), generator=generator)
    sides = torch.randint(1, 28, (300, 2), generator=generator)
    targets = assigner()(*full(torch.cat([corners, corners + sides], 1).tolist()), CANVAS)
    assert len(targets.cells) == len(targets.mask_cells) <= 12 * 12 + 6 * 6
    assert torch.equal(targets.cells, targets.mask_cells.sort()[0])


def by_pixel(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The rule of quarter masks, one pixel after the other."""
    height, width = mask.shape
    result = torch.zeros(size, dtype=torch.bool)
    for y in range(size[0]):
        for x in range(size[1]):
            block = [(4 * y + i, 4 * x + j) for i in (1, 2) for j in (1, 2)]
            result[y, x] = sum(bool(mask[p]) for p in block if p[0] < height and p[1] < width) >= 2
    return result


@pytest.mark.parametrize("shape", [(16, 24), (13, 22), (14, 23), (15, 21), (3, 1)])
def test_quarter_masks(shape):
    """Of sides that are no multiples of 4, too, as if the mask were padded with zeros."""
    masks = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0)) > 0.5
    found = quarter_masks(masks, (5, 7))
    assert torch.equal(found, torch.stack([by_pixel(mask, (5, 7)) for mask in masks]))


def test_a_thin_object_vanishes():
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :, 4] = True
    assert not quarter_masks(mask, (4, 4)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid_sizes": [12], "scale_ranges": []}, "one scale range for each of 1 grids, got 0"),
        (
            {
                "grid_sizes": [12],
                "scale_ranges": [(1, 9)],
                "first_wins": False,
                "published_order": True,
            },
            "published_order needs first_wins",
        ),
        ({"grid_sizes": [12], "scale_ranges": [1]}, r"pairs of sizes, got \[1\]"),
        ({"grid_sizes": [0], "scale_ranges": [(1, 9)]}, r"grid_sizes\[0\] must be .* >= 1"),
        (
            {"grid_sizes": [12], "scale_ranges": [(1, 9)], "center_fraction": -1},
            "center_fraction must be",
        ),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        GridAssigner(**options)
