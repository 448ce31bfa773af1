"""Choice of rows of an auxiliary head, and the boxes and targets of the queries made of them."""

import pytest
import torch

from brloss_d2.projects.co_detr.modeling.custom_queries import HeadRows, choose_rows, custom_queries

CLASSES = 80


def labels(num_positives: int, length: int = 600) -> torch.Tensor:
    """Labels: positives of different classes first, then background."""
    found = torch.full((length,), CLASSES)
    found[:num_positives] = torch.arange(num_positives) % CLASSES
    return found


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("positives", "count"), [((0, 5, 400), 300), ((0, 0), 9), ((3, 12), 12), ((300, 1), 300)]
)
def test_counts(positives, count):
    lists = [labels(n) for n in positives]
    rows = choose_rows(lists, CLASSES, generator=seeded(0))
    assert rows.shape == (len(lists), count) and rows.dtype == torch.int64
    for n, image, chosen in zip(positives, lists, rows, strict=True):
        assert len(chosen.unique()) == count
        kept = min(n, count)
        assert (image[chosen[:kept]] < CLASSES).all()
        assert (image[chosen[kept:]] == CLASSES).all()
        if n <= count:
            assert chosen[:kept].sort().values.tolist() == list(range(n))


def test_largest_and_smallest_number():
    assert choose_rows([labels(50)], CLASSES, max_count=20).shape == (1, 20)
    assert choose_rows([labels(2)], CLASSES, min_count=4).shape == (1, 4)


def test_draws_are_random_but_repeatable():
    lists = [labels(40), labels(3)]
    draws = [choose_rows(lists, CLASSES, 20, generator=seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    for image in range(2):
        assert set(draws[0][image].tolist()) != set(draws[2][image].tolist())


def test_all_rows_are_equally_likely():
    """5 of 10 positives are drawn, and 4 of 8 background rows: each in half of 2000 draws."""
    lists = [labels(10, 10), labels(1, 9)]
    generator = seeded(0)
    draws = [choose_rows(lists, CLASSES, 5, 1, generator) for _ in range(2000)]
    first, second = torch.stack(draws).unbind(1)
    drawn = torch.cat([first.flatten().bincount(), second.flatten().bincount()[1:]])
    # Five standard deviations of a binomial distribution.
    assert (drawn - 1000).abs().max() < 5 * 500**0.5


def test_ignored_rows_are_never_drawn():
    image = torch.tensor([-1] * 10 + [3] + [CLASSES] * 20 + [-1] * 10)
    rows = choose_rows([image], CLASSES, generator=seeded(0))
    assert rows[0, 0] == 10 and (image[rows] >= 0).all()


def test_too_few_rows():
    image = torch.tensor([CLASSES, -1, 7, CLASSES])
    rows = choose_rows([image, image[:0]], CLASSES, generator=seeded(0))
    assert rows[0, 0] == 2 and set(rows[0, 1:3].tolist()) == {0, 3}
    assert rows[0, 3:].tolist() == [-1] * 6 and rows[1].tolist() == [-1] * 9


def test_boxes_and_targets_of_the_rows():
    """Boxes are relative to each image and not clipped; rows that fill up are ignored."""
    boxes = torch.tensor([[10.0, 20, 30, 60], [-50, 0, 150, 40], [0, 0, 0, 0]])
    objects = boxes + 1
    handed_over = HeadRows(
        boxes=[boxes, boxes.requires_grad_()],
        labels=[torch.tensor([4, CLASSES, CLASSES])] * 2,
        gt_boxes=[objects, objects + 1],
        features=torch.zeros_like,
    )
    rows = torch.tensor([[0, 1, -1], [0, 2, 1]])
    found = custom_queries(rows, handed_over, [1, 1], [(80, 100), (40, 50)])
    first, second = found.boxes
    assert first.tolist() == [
        [pytest.approx(x) for x in (0.2, 0.5, 0.2, 0.5)],
        [0.5, 0.25, 2.0, 0.5],
        [0] * 4,
    ]
    assert second[1:].tolist() == [[0] * 4, [1.0, 0.5, 4.0, 1.0]]
    assert found.labels.tolist() == [[4, CLASSES, -1], [4, CLASSES, CLASSES]]
    assert found.foreground.tolist() == [0, 3]
    assert torch.equal(found.gt_boxes[0, :2], objects[:2])
    assert torch.equal(found.gt_boxes[1], objects[[0, 2, 1]] + 1)
    assert not found.boxes.requires_grad


def test_order_of_the_rows_does_not_matter():
    """If all positives fit, the same set is chosen in any order of the rows."""
    image, boxes = labels(12, 12), torch.rand(12, 4, generator=seeded(2)) * 50
    order = torch.randperm(12, generator=seeded(3))
    sets = []
    for rows in (torch.arange(12), order):
        chosen = choose_rows([image[rows]], CLASSES)
        handed_over = HeadRows([boxes[rows]], [image[rows]], [boxes[rows]], torch.zeros_like)
        found = custom_queries(chosen, handed_over, [12], [(50, 50)])
        sets.append(found.gt_boxes[0][found.labels[0].argsort()])
    assert torch.equal(*sets)
