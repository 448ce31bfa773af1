"""Polygons and RLE of the same masks."""

import pytest

from brloss_d2.data.masks import mask_box, to_rle

HEIGHT, WIDTH = 20, 40
L_SHAPE = [4, 2, 30, 2, 30, 6, 10, 6, 10, 17, 4, 17]
SQUARE = [32, 10, 36, 10, 36, 14, 32, 14]


@pytest.mark.parametrize(
    ("polygons", "box"),
    [([L_SHAPE], [4, 2, 26, 15]), ([L_SHAPE, SQUARE], [4, 2, 32, 15]), ([SQUARE], [32, 10, 4, 4])],
)
def test_the_box_of_polygons_is_that_of_their_pixels(polygons, box):
    assert mask_box(polygons) == box
    assert mask_box(to_rle(polygons, HEIGHT, WIDTH)) == box
