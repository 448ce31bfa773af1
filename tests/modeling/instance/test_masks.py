"""Masks in full images."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks

from brloss_d2.errors import InputError
from brloss_d2.modeling.instance import masks as masks_module
from brloss_d2.modeling.instance.masks import bitmaps, mask_boxes, paste_masks


def random_masks(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("padded", [False, True])
def test_pasting_in_parts(monkeypatch, padded):
    probs = random_masks(5, 8, 12)
    options = {"canvas": (32, 48), "image_size": (30, 41)} if padded else {}
    expected = probs[None]
    if padded:
        expected = F.interpolate(expected, size=(32, 48), mode="bilinear")[..., :30, :41]
    expected = F.interpolate(expected, size=(61, 33), mode="bilinear")[0] > 0.5
    assert torch.equal(paste_masks(probs, (61, 33), **options), expected)
    monkeypatch.setattr(masks_module, "_MAX_PIXELS", 2 * 61 * 33)
    assert torch.equal(paste_masks(probs, (61, 33), **options), expected)


def test_no_masks():
    assert paste_masks(random_masks(0, 8, 12), (61, 33)).shape == (0, 61, 33)
    assert mask_boxes(torch.zeros(0, 61, 33, dtype=torch.bool)).tensor.shape == (0, 4)


def test_boxes_are_those_of_detectron2():
    masks = random_masks(6, 9, 14) > 0.97
    masks[2] = False
    assert torch.equal(mask_boxes(masks).tensor, BitMasks(masks).get_bounding_boxes().tensor)


def test_masks_of_objects():
    """An image without objects has none; those of objects have to be bitmaps."""
    classes = torch.tensor([1, 0])
    objects = Instances((9, 14), gt_boxes=Boxes(torch.zeros(2, 4)), gt_classes=classes)
    assert bitmaps(objects[:0]).shape == (0, 9, 14)
    polygons = Instances((9, 14), **objects.get_fields(), gt_masks=PolygonMasks([[], []]))
    for wrong in (objects, polygons):
        with pytest.raises(InputError, match="instance_mask_format"):
            bitmaps(wrong)
    objects.gt_masks = BitMasks(random_masks(2, 9, 14) > 0.5)
    assert torch.equal(bitmaps(objects), objects.gt_masks.tensor)
