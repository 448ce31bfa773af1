"""Anchors that are fitted to the size of the image."""

import pytest
import torch

from brloss_d2.modeling import FittedAnchorGenerator

SIZES = [[24], [48], [96], [192], [384]]


def anchors(maps, image_size):
    generator = FittedAnchorGenerator(sizes=SIZES[: len(maps)], aspect_ratios=[0.5, 1.0, 2.0])
    return generator([torch.zeros(1, 1, *size) for size in maps], image_size)


def test_published_anchors():
    """YOLACT at 550 x 550 pixels: strides 7.97, 15.71, 30.56, 61.11 and 110."""
    sides = (69, 35, 18, 9, 5)
    found = anchors([(side, side) for side in sides], (550, 550))
    assert [len(level) for level in found] == [14283, 3675, 972, 243, 75]
    expected = [
        [-12.9851, -4.4998, 20.9561, 12.4708],
        [-8.0145, -8.0145, 15.9855, 15.9855],
        [-4.4998, -12.9851, 12.4708, 20.9561],
    ]
    torch.testing.assert_close(found[0].tensor[:3], torch.tensor(expected), rtol=0, atol=1e-4)
    for level, side in zip(found, sides, strict=True):
        step = level.tensor[3] - level.tensor[0]
        assert step.tolist() == pytest.approx([550 / side, 0, 550 / side, 0], abs=1e-4)


def test_images_that_are_not_square():
    (found,) = anchors([(2, 3)], (20, 33))
    centers = found.get_centers().view(2, 3, 3, 2)
    assert centers[:, 0, 0, 1].tolist() == pytest.approx([5, 15])
    assert centers[0, :, 2, 0].tolist() == pytest.approx([5.5, 16.5, 27.5])
    width, height = (found.tensor[0, 2:] - found.tensor[0, :2]).tolist()
    assert height / width == pytest.approx(0.5)
    assert height * width == pytest.approx(24**2)
