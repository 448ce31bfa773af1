"""IoU, GIoU and the box losses."""

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from brloss_d2.criteria import MatchedPredictions
from brloss_d2.losses import GIoULoss, SmoothL1Loss, paired_box_giou, paired_box_iou

aminmax = torch.Tensor.aminmax


def boxes(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(n, 2, generator=g, dtype=torch.float64) * 40
    return torch.cat([xy, xy + torch.rand(n, 2, generator=g, dtype=torch.float64) * 60 + 1], 1)


def test_iou_and_giou_equal_torchvision():
    a, b = boxes(50, 0), boxes(50, 1)
    torch.testing.assert_close(paired_box_iou(a, b), box_iou(a, b).diagonal())
    torch.testing.assert_close(paired_box_giou(a, b), generalized_box_iou(a, b).diagonal())


@pytest.mark.parametrize("scale", [1e-3, 1e-6])
def test_iou_has_no_unit(scale):
    a, b = boxes(50, 0).float(), boxes(50, 1).float()
    torch.testing.assert_close(paired_box_iou(a * scale, b * scale), paired_box_iou(a, b))


@pytest.mark.parametrize("measure", [GIoULoss(), paired_box_iou])
def test_gradients_of_both_boxes(measure):
    a, b = boxes(9, 0), boxes(9, 1)
    assert measure(a, b).unique().numel() > 5
    assert torch.autograd.gradcheck(measure, (a.requires_grad_(), b.requires_grad_()))


def test_gradients_at_equal_coordinates():
    """Half of the gradient goes to each box, and a side of length 0 may grow."""
    g = torch.Generator().manual_seed(0)
    pairs = torch.randint(0, 4, (2, 200, 4), generator=g).double()

    def giou_loss(a, b):
        sides = [
            torch.minimum(a, b)[:, 2:] - torch.maximum(a, b)[:, :2],
            torch.maximum(a, b)[:, 2:] - torch.minimum(a, b)[:, :2],
            *(x[:, 2:] - x[:, :2] for x in (a, b)),
        ]
        sides = [x.where(x >= 0, 0) for x in sides]  # at 0, versions of torch clamp differently
        intersection, enclosing, area_a, area_b = (x[:, 0] * x[:, 1] for x in sides)
        union = (area_a + area_b - intersection).clamp(min=1e-6)
        enclosing = enclosing.clamp(min=1e-6)
        return 1 - (intersection / union - (enclosing - union) / enclosing)

    found, expected = pairs.clone().requires_grad_(), pairs.clone().requires_grad_()
    losses, by_torch = GIoULoss()(*found), giou_loss(*expected)
    torch.testing.assert_close(losses, by_torch)
    (losses.sum() + by_torch.sum()).backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_quality_and_loss_share_the_areas(monkeypatch):
    pred, gt = boxes(5, 0).requires_grad_(), boxes(5, 1)
    labels = torch.zeros(5, dtype=torch.int64)
    matched = MatchedPredictions(torch.zeros(5, 1), labels, pred, gt, num_classes=1)
    found = []
    monkeypatch.setattr(
        torch.Tensor, "aminmax", lambda *args, **kw: found.append(0) or aminmax(*args, **kw)
    )
    for _ in range(2):  # two losses have graphs of their own
        matched.localization_quality()
        matched.box_losses(GIoULoss()).sum().backward()
    assert len(found) == 1


def test_boxes_without_area_have_finite_losses_and_gradients():
    a = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 0]], requires_grad=True)
    b = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 10]])
    iou, loss = paired_box_iou(a, b), GIoULoss()(a, b)
    (iou + loss).sum().backward()
    assert iou.tolist() == [0, 0]
    assert loss.isfinite().all()
    assert a.grad.isfinite().all()


def test_smooth_l1():
    pred, target = torch.tensor([[0.0, 1, 2, 3]]), torch.zeros(1, 4)
    assert SmoothL1Loss()(pred, target).item() == 6
    assert SmoothL1Loss(beta=1.0)(pred, target).item() == 0.5 + 1.5 + 2.5
    with pytest.raises(ValueError, match="beta"):
        SmoothL1Loss(beta=-1)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(P, 4\)"):
        paired_box_iou(torch.zeros(2, 4), torch.zeros(3, 4))
