"""Denoising queries: sizes, slots, noise, mask and targets."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from brloss_d2.projects.co_detr.modeling.decoder import Queries
from brloss_d2.projects.co_detr.modeling.denoising import (
    DenoisingQueries,
    Noise,
    NoisyQueries,
    draw_noise,
    move_corners,
    num_groups,
)

CLASSES, DIM, SIZE = 5, 8, (40, 80)


def objects(*counts: int) -> list[Instances]:
    g = torch.Generator().manual_seed(0)
    images = []
    for n in counts:
        corners = torch.rand(n, 2, generator=g) * 20
        boxes = torch.cat([corners, corners + 10], 1)
        found = Instances(SIZE, gt_boxes=Boxes(boxes))
        found.gt_classes = torch.randint(CLASSES, (n,), generator=g)
        images.append(found)
    return images


def make(*counts: int, num_queries: int = 20, seed: int = 1) -> NoisyQueries:
    torch.manual_seed(0)
    module = DenoisingQueries(CLASSES, DIM, num_queries=num_queries)
    torch.manual_seed(seed)
    return module(objects(*counts))


@pytest.mark.parametrize(
    ("most", "groups", "slots"),
    [
        (0, 1, 0),
        (1, 100, 200),
        (6, 16, 192),
        (7, 14, 196),
        (34, 2, 136),
        (51, 1, 102),
        (100, 1, 200),
        (101, 1, 202),
        (150, 1, 300),
    ],
)
def test_numbers_of_groups_and_slots(most: int, groups: int, slots: int) -> None:
    assert num_groups(most, 100) == groups
    assert make(most, 0, num_queries=100).labels.shape == (2, slots)


def test_targets_are_those_without_noise() -> None:
    """In each group positives come first; negatives and unused slots are background."""
    images, found = objects(3, 1), make(3, 1)
    assert found.num_groups == 6
    labels, boxes = found.labels.view(2, 6, 2, 3), found.gt_boxes.view(2, 6, 2, 3, 4)
    assert (labels[:, :, 1] == CLASSES).all() and (boxes[:, :, 1] == 0).all()
    for i, x in enumerate(images):
        assert (labels[i, :, 0, : len(x)] == x.gt_classes).all()
        assert (boxes[i, :, 0, : len(x)] == x.gt_boxes.tensor).all()
    assert (labels[1, :, 0, 1:] == CLASSES).all()
    assert torch.equal(found.foreground, (found.labels < CLASSES).flatten().nonzero().squeeze(1))
    unused = torch.ones(2, 6, 2, 3, dtype=torch.bool)
    unused[0], unused[1, :, :, 0] = False, False
    assert (found.queries.content[unused.flatten(1)] == 0).all()
    assert (found.queries.references[unused.flatten(1)] == 0.5).all()
    assert (found.queries.content[~unused.flatten(1)] != 0).any(-1).all()


def test_mask() -> None:
    found = make(3, 1)
    slots, others = found.labels.shape[1], 4
    content, references = torch.zeros(2, others, DIM), torch.zeros(2, others, 4)
    mask = found.before(Queries(content, None, references)).mask
    for row in range(slots + others):
        for column in range(slots + others):
            group = [x // 6 if x < slots else -1 for x in (row, column)]
            assert mask[row, column] == (column < slots and group[0] != group[1])


def test_corners_move_by_up_to_half_a_side_or_from_half_to_a_whole_one() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.1]]).repeat(400, 1)
    negative = torch.arange(400) % 2 == 1
    noise = draw_noise(400, CLASSES, 0.25, torch.Generator().manual_seed(0))
    moved = move_corners(boxes, noise, negative, box_noise=1.0)
    centers, sizes = moved[:, :2], moved[:, 2:]
    corners = torch.cat([centers - sizes / 2, centers + sizes / 2], 1)
    moves = (corners - torch.tensor([0.4, 0.45, 0.6, 0.55])).abs()
    moves = moves / torch.tensor([0.2, 0.1, 0.2, 0.1])
    assert moves[~negative].max() <= 0.5 + 1e-5
    assert moves[negative].min() >= 0.5 - 1e-5 and moves[negative].max() <= 1 + 1e-5


def fixed_noise(signs: list[float], sizes: list[float]) -> Noise:
    empty = torch.zeros(0, dtype=torch.int64)
    return Noise(torch.tensor([False]), empty, torch.tensor([signs]), torch.tensor([sizes]))


def test_crossed_corners_are_not_exchanged() -> None:
    """The left side moves to the right by 0.9 of the half width more, the right one to the left."""
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    noise = fixed_noise([1.0, -1.0, -1.0, 1.0], [0.9, 0.0, 0.9, 0.0])
    moved = move_corners(box, noise, torch.tensor([True]), box_noise=1.0)
    torch.testing.assert_close(moved, torch.tensor([[0.5, 0.5, -0.18, 0.4]]))


def test_boxes_of_crossed_corners_are_thin() -> None:
    sizes = torch.cat([make(5, seed=s).queries.references[..., 2:] for s in range(3)])
    assert sizes.min().item() == pytest.approx(0.001 / 1.001, rel=1e-4)


def test_a_seed_draws_in_order() -> None:
    noise = draw_noise(40, CLASSES, 0.25, torch.Generator().manual_seed(3))
    g = torch.Generator().manual_seed(3)
    flipped = torch.rand(40, generator=g) < 0.25
    assert torch.equal(noise.flipped, flipped)
    drawn = torch.randint(CLASSES, (int(flipped.sum()),), generator=g)
    assert torch.equal(noise.new_labels, drawn)
    assert torch.equal(noise.signs, torch.randint(2, (40, 4), generator=g) * 2.0 - 1)
    assert torch.equal(noise.sizes, torch.rand(40, 4, generator=g))
    first, same, other = (make(3, 1, seed=s).queries.references for s in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_quarter_of_the_classes_is_drawn_again() -> None:
    noise = draw_noise(4000, CLASSES, 0.25, torch.Generator().manual_seed(0))
    assert 900 < noise.flipped.sum() < 1100


def gradient_of_the_table(*counts: int) -> Tensor:
    module = DenoisingQueries(CLASSES, DIM, num_queries=20)
    module(objects(*counts)).queries.content.sum().backward()
    return module.label_embedding.weight.grad


def test_a_batch_without_objects_has_no_queries_but_a_gradient() -> None:
    assert (gradient_of_the_table(0, 0) == 0).all()
    assert gradient_of_the_table(0, 1).any()
    alone = Queries(torch.ones(2, 3, DIM), None, torch.ones(2, 3, 4))
    queries = make(0, 0).before(alone)
    assert torch.equal(queries.content, alone.content)
    assert not queries.mask.any()


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_queries", 0), ("label_noise", 2), ("box_noise", -1), ("reference_eps", 0)],
)
def test_wrong_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number"):
        DenoisingQueries(3, 8, **{name: value})
