"""IoU, GIoU and the box losses."""

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou

from brloss_d2.losses import GIoULoss, SmoothL1Loss, paired_box_giou, paired_box_iou


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


def test_giou_gradient():
    a, b = boxes(5, 0).requires_grad_(), boxes(5, 1)
    assert torch.autograd.gradcheck(lambda x: GIoULoss()(x, b), a)


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
