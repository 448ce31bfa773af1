"""Ranking pools: groups of images, and one pool over several processes."""

import pytest
import torch
import torch.distributed as dist

from brloss_d2.criteria import MatchedPredictions, RankingCriterion
from brloss_d2.losses import GIoULoss, RankSortLoss, SelfBalancer
from tests.helpers.criteria import build_criterion
from tests.helpers.programs import Programs

LOSSES = ("ap", "bap", "rs", "brs", "alrp")
IMAGES = 8
# Rows and foreground of each image. In four processes of two images: one without positives, one
# without negatives, one without any row, and an ordinary one.
ROWS = [(30, 0), (25, 0), (6, 6), (5, 5), (0, 0), (0, 0), (40, 7), (35, 4)]


def batch(first: int = 0, last: int = IMAGES) -> MatchedPredictions:
    """Images `first` to `last` of one and the same batch, one class; logits and deltas leaves."""
    parts = []
    for image in range(first, last):
        g = torch.Generator().manual_seed(image)
        rows, positives = ROWS[image]
        labels = (torch.arange(rows) >= positives).long()
        logits = torch.randn(rows, 1, generator=g) + (labels[:, None] == 0)
        xy = torch.rand(positives, 2, generator=g) * 50
        gt = torch.cat([xy, xy + 20 + torch.rand(positives, 2, generator=g) * 30], 1)
        parts.append((logits, labels, torch.randn(positives, 4, generator=g), gt))
    logits, labels, deltas, gt = (torch.cat(x) for x in zip(*parts, strict=True))
    deltas = deltas.requires_grad_()
    return MatchedPredictions(
        logits.requires_grad_(),
        labels,
        gt + deltas,
        gt,
        1,
        pred_deltas=deltas,
        gt_deltas=torch.zeros_like(deltas),
        rows_per_image=[ROWS[i][0] for i in range(first, last)],
    )


def criterion(loss: str, **pools):
    made = build_criterion(loss, "roi", pools_per_epoch=100)
    made.images_per_pool, made.pool = pools.get("images_per_pool"), pools.get("pool", "local")
    return made


def step(loss: str, matched: MatchedPredictions, **pools):
    """Losses by name, and the gradients of logits and deltas."""
    losses = criterion(loss, **pools)(matched).losses
    leaves = (matched.logits, matched.pred_deltas)
    gradients = torch.autograd.grad(sum(losses.values()), leaves)
    return {name: value.detach() for name, value in losses.items()}, gradients


def balancer_state(matched: MatchedPredictions, **pools) -> dict[str, torch.Tensor]:
    """What aLRP's balancer remembers after one step."""
    made = criterion("alrp", **pools)
    made(matched)
    return made.balancer.state_dict()


def worker(folder: str) -> None:
    rank, share = dist.get_rank(), IMAGES // dist.get_world_size()
    bounds = rank * share, (rank + 1) * share
    results = {loss: step(loss, batch(*bounds), pool="global") for loss in LOSSES}
    results["balancer"] = balancer_state(batch(*bounds), pool="global")
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("world", [1, 2, 4])
def test_global_pool_equals_one_process_with_the_whole_batch(programs: Programs, world, tmp_path):
    programs.spawn(worker, str(tmp_path), processes=world, folder=tmp_path)
    results = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(world)]
    for loss in LOSSES:
        values, expected = step(loss, batch())
        for result in results:
            for name, value in values.items():
                torch.testing.assert_close(result[loss][0][name], value, rtol=1e-6, atol=0)
        for leaf in (0, 1):
            # What data-parallel training makes of it: the mean over the processes.
            mean = torch.cat([result[loss][1][leaf] for result in results]) / world
            scale = expected[leaf].abs().max().item()
            torch.testing.assert_close(mean, expected[leaf], rtol=0, atol=1e-6 * scale)
    # Also where a process has no positive of its own: else weights would drift apart.
    for result in results:
        torch.testing.assert_close(result["balancer"], balancer_state(batch()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_groups_of_images_are_averaged(loss):
    values, gradients = step(loss, batch(), images_per_pool=3)
    parts = [step(loss, batch(*bounds)) for bounds in ((0, 3), (3, 6), (6, 8))]
    for name, value in values.items():
        mean = sum(part[0][name] for part in parts) / 3
        torch.testing.assert_close(value, mean)
    for leaf in (0, 1):
        expected = torch.cat([part[1][leaf] for part in parts]) / 3
        torch.testing.assert_close(gradients[leaf], expected)


def test_weights_and_totals_of_groups_keep_the_order_of_rows_and_images():
    whole = criterion("rs")(batch())
    groups = criterion("rs", images_per_pool=3)(batch())
    assert torch.equal(groups.box_weights, whole.box_weights)
    assert whole.cls_total.shape == ()
    totals = [criterion("rs")(batch(*b)).cls_total for b in ((0, 3), (3, 6), (6, 8))]
    expected = torch.stack(totals).repeat_interleave(torch.tensor([3, 3, 2]))
    torch.testing.assert_close(groups.cls_total, expected)
    assert groups.metrics()["num_positives"] == whole.metrics()["num_positives"] == 22
    assert whole.metrics()["pool_size"] == int((batch().binary_labels() >= 0).sum())
    assert groups.metrics()["pool_size"] == whole.metrics()["pool_size"] / 3, "the mean of a pool"


def test_small_batches_are_one_pool():
    values, _ = step("rs", batch(6, 8), images_per_pool=4)
    expected, _ = step("rs", batch(6, 8))
    assert values == expected


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"pool": "world"}, "pool must be one of"),
        ({"images_per_pool": 0}, "images_per_pool must be >= 1"),
        ({"images_per_pool": 2, "pool": "global"}, "goes with pool='local'"),
    ],
)
def test_wrong_pools(pools, message):
    with pytest.raises(ValueError, match=message):
        RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer(), **pools)


def test_groups_need_to_know_the_images():
    matched = batch()
    blind = MatchedPredictions(**{**vars(matched), "rows_per_image": None})
    with pytest.raises(ValueError, match="need rows_per_image"):
        blind.split(2)


def test_groups_are_views_and_know_their_foreground():
    whole = batch()
    parts = whole.split(3)
    assert [part.num_images for part in parts] == [3, 3, 2]
    for part in parts:
        assert part.logits.untyped_storage().data_ptr() == whole.logits.untyped_storage().data_ptr()
        assert (
            part.gt_boxes.untyped_storage().data_ptr()
            == whole.gt_boxes.untyped_storage().data_ptr()
        )
        assert torch.equal(part.foreground, (part.labels == 0).nonzero().squeeze(1))
        assert part.positives_per_image.tolist() == [
            int((x == 0).sum()) for x in part.labels.split(part.rows_per_image)
        ]
