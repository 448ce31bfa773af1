"""The criterion of the mask branch: weights, balance, pools, the limit on masks."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from brloss_d2.criteria import MaskCriterion, MatchedMasks
from brloss_d2.errors import InputError
from brloss_d2.losses import DiceLoss, SelfBalancer
from tests.helpers.criteria import RCNN_CRITERIA, build_criterion
from tests.helpers.programs import Programs

LOGITS = torch.tensor([[[0.5, -1], [2, 0]], [[1, 1], [-1, -1]], [[0, 0.3], [-0.3, 2]]])
TARGETS = torch.tensor([[[1, 0], [1, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 1]]]).bool()
CPU = torch.device("cpu")
WEIGHTS = torch.tensor([0.645656, 0.598688, 0.574443])


def masks(per_image=(2, 1), total=0.662145, rows=slice(None)) -> MatchedMasks:
    return MatchedMasks(
        logits=LOGITS[rows].clone().requires_grad_(),
        targets=TARGETS[rows],
        weights=WEIGHTS[rows],
        cls_total=torch.full((3,), total)[rows],
        masks_per_image=per_image,
    )


def dice(**options) -> MaskCriterion:
    return MaskCriterion(DiceLoss(), SelfBalancer(), **options)


def test_published_values():
    matched = masks()
    output = build_criterion("brs", "mask")(matched)
    loss = output.losses["loss_mask"]
    assert loss.item() == pytest.approx(0.662145, rel=1e-5)
    assert output.metrics()["mask_unbalanced"].item() == pytest.approx(0.204020, abs=1e-6)
    loss.backward()
    expected = torch.tensor([[-0.071945, 0.030151], [-0.016677, 0.071277]])
    torch.testing.assert_close(matched.logits.grad[0], expected, rtol=0, atol=2e-6)


def test_cross_entropy_is_the_mean_over_pixels():
    matched = replace(masks(), weights=torch.ones(3))
    loss = build_criterion("ce", "mask")(matched).losses["loss_mask"]
    torch.testing.assert_close(
        loss, F.binary_cross_entropy_with_logits(LOGITS, TARGETS.float()), rtol=1e-6, atol=0
    )


def test_pools_are_balanced_one_by_one():
    totals = torch.tensor([0.5, 0.5, 0.9])
    together = replace(masks(), cls_total=totals)
    output = dice(images_per_pool=1)(together)
    alone = [
        replace(masks((count,), rows=rows), cls_total=totals[rows])
        for count, rows in ((2, slice(0, 2)), (1, slice(2, 3)))
    ]
    losses = [dice()(part).losses["loss_mask"] for part in alone]
    torch.testing.assert_close(output.losses["loss_mask"], sum(losses) / 2)
    assert output.losses["loss_mask"].item() == pytest.approx((0.5 + 0.9) / 2)
    output.losses["loss_mask"].backward()
    (sum(losses) / 2).backward()
    parts = torch.cat([part.logits.grad for part in alone])
    torch.testing.assert_close(together.logits.grad, parts)


def test_losses_that_the_head_has_computed():
    """Take the place of logits and targets, in pools, too."""
    whole = replace(masks(), cls_total=torch.tensor([0.5, 0.5, 0.9]))
    given = replace(whole, logits=None, targets=None, losses=DiceLoss()(LOGITS, TARGETS))
    for criterion in (dice(), dice(images_per_pool=1)):
        expected, output = criterion(whole), criterion(given)
        torch.testing.assert_close(output.losses, expected.losses)
        assert output.metrics() == expected.metrics()
    with pytest.raises(ValueError, match="masks need logits and targets, or losses"):
        replace(given, losses=None)
    with pytest.raises(ValueError, match="weights, cls_total, losses must have one entry"):
        replace(given, losses=torch.ones(2))


@pytest.mark.parametrize("name", RCNN_CRITERIA)
@pytest.mark.parametrize("rows", [slice(0, 0), slice(2, 3)])
def test_images_without_masks(name, rows):
    matched = masks((0, len(WEIGHTS[rows])), rows=rows)
    output = build_criterion(name, "mask")(matched)
    assert output.losses.keys() == {"loss_mask"}
    (gradient,) = torch.autograd.grad(output.losses["loss_mask"], matched.logits)
    assert gradient.isfinite().all()
    assert bool(output.losses["loss_mask"] > 0) == (rows == slice(2, 3))


def test_limit_holds_for_each_pool():
    counts = (5, 30, 3, 2)
    kept = dice(max_masks=10, images_per_pool=2).sample(counts, CPU)
    assert kept[:35].sum() == 10
    assert kept[35:].all()
    assert dice(images_per_pool=2).sample(counts, CPU).tolist() == [True] * 40
    assert dice(max_masks=10).sample(counts, CPU).sum() == 10


def test_limit_holds_for_each_image():
    kept = dice(max_masks_per_image=10, images_per_pool=2).sample((5, 30, 0, 12), CPU)
    assert [part.sum() for part in kept.split((5, 30, 0, 12))] == [5, 10, 0, 10]


def test_every_mask_has_the_same_chance():
    torch.manual_seed(0)
    criterion = dice(max_masks=2)
    counts = torch.stack([criterion.sample([6], CPU) for _ in range(600)]).sum(0)
    assert counts.sum() == 1200
    assert counts.min() > 150  # 200 expected
    assert counts.max() < 250


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_masks": 0}, "max_masks must be a finite number >= 1, got 0"),
        ({"max_masks_per_image": 0}, "max_masks_per_image must be a finite number >= 1, got 0"),
        ({"max_masks": 9, "max_masks_per_image": 9}, "exclude each other"),
        ({"pool": "all"}, "pool must be one of"),
        ({"images_per_pool": 2, "pool": "global"}, "goes with pool='local'"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        dice(**options)


def test_names_are_checked():
    with pytest.raises(InputError, match="no criterion 'focal'"):
        build_criterion("focal", "mask")


def global_step(folder: str) -> None:
    rank = dist.get_rank()
    matched = masks((0, 0), rows=slice(0, 0)) if rank else masks()
    dice(pool="global")(matched).losses["loss_mask"].backward()
    torch.save(matched.logits.grad, f"{folder}/{rank}.pt")


def test_global_pool_with_a_process_that_has_no_masks(programs: Programs, tmp_path):
    programs.spawn(global_step, str(tmp_path), processes=2, folder=tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = masks()
    dice()(alone).losses["loss_mask"].backward()
    # Data-parallel training averages over the two processes.
    torch.testing.assert_close(first / 2, alone.logits.grad)
    assert second.shape == (0, 2, 2)
