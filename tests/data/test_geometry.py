"""Notes on boxes that look like mistakes."""

from typing import Any

import numpy as np
import pytest

from brloss_d2.data.checks import geometry_notes
from brloss_d2.errors import InputError

IMAGES = [
    {"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100 + 60 * (i % 2)} for i in range(8)
]


def records() -> list[dict[str, Any]]:
    """Return 5 boxes anywhere in each of the images, with masks that fill them."""
    rng = np.random.default_rng(0)
    found = []
    for image in IMAGES:
        for _ in range(5):
            w, h = (float(rng.uniform(5, image[side] * 0.8)) for side in ("width", "height"))
            x, y = rng.uniform(0, image["width"] - w), rng.uniform(0, image["height"] - h)
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            found.append(
                {
                    "role": "object",
                    "image_id": image["id"],
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "segmentation": [polygon],
                }
            )
    return found


def test_good_boxes_have_no_notes() -> None:
    assert geometry_notes(IMAGES, records()) == []
    assert geometry_notes(IMAGES[:1], records()[:1]) == []
    assert geometry_notes([], []) == []


def boxes(change) -> list[dict[str, Any]]:
    return [{**r, "bbox": change(*r["bbox"]), "segmentation": None} for r in records()]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (boxes(lambda x, y, w, h: [x, y, x + w, y + h]), "look like corners [x0, y0, x1, y1]"),
        (boxes(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), "look like [center x, center y"),
        (boxes(lambda x, y, w, h: [y, x, h, w]), "look like [y, x, height, width]"),
        (
            boxes(lambda x, y, w, h: [2 * x, 2 * y, 2 * w, 2 * h]),
            "in training; the evaluation compares with the whole",
        ),
        (boxes(lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2]), "in the upper left:"),
        (boxes(lambda x, y, w, h: [x, y, 0.5, h]), "40 of 40 boxes are thinner than a pixel"),
        (records() + records()[:3], "3 of 43 boxes repeat another of the same image and class"),
        (
            records() + [{**r, "category_id": 2} for r in records()[:3]],
            "3 of 43 boxes repeat another of the same image with another class",
        ),
        (
            records() + [{**r, "bbox": [v + 1e-4 for v in r["bbox"]]} for r in records()[:1]],
            "1 of 41 boxes repeat another",
        ),
        (
            [{**r, "role": "crowd"} for r in records()[:10]] + records()[5:],
            "10 of 45 boxes are crowds",
        ),
        (records()[:15], "5 of 8 images have no objects"),
        (
            [{**r, "segmentation": [[0, 0, 2, 0, 2, 2]]} for r in records()],
            "40 of 40 boxes hardly overlap their mask",
        ),
    ],
)
def test_notes(found: list[dict[str, Any]], expected: str) -> None:
    (note,) = geometry_notes(IMAGES, found)
    assert expected in note


def test_fractions_are_refused() -> None:
    fractions = boxes(lambda x, y, w, h: [x / 200, y / 160, w / 200, h / 160])
    with pytest.raises(InputError, match="all boxes are between 0 and 1: expected pixels"):
        geometry_notes(IMAGES, fractions)
    for record in fractions:
        x, y, w, h = record["bbox"]
        record.update(bbox=[9, 9, 9, 9], segmentation=[[x, y, x + w, y, x + w, y + h]])
    with pytest.raises(InputError, match="all polygons are between 0 and 1: expected pixels"):
        geometry_notes(IMAGES, [{**r, "role": "with an empty mask"} for r in fractions])


def test_tiny_images_may_have_boxes_as_small_as_fractions() -> None:
    images = [{**image, "width": 2, "height": 2} for image in IMAGES]
    found = geometry_notes(images, boxes(lambda *_: [0, 0, 1, 1])[::5])
    assert all("fraction" not in note for note in found)


def test_images_whose_boxes_are_dropped_have_objects() -> None:
    assert geometry_notes(IMAGES, [{**r, "role": "outside of the image"} for r in records()]) == []


def test_a_file_in_two_records() -> None:
    images = [*IMAGES, {**IMAGES[0], "id": 99, "file_name": "./0.jpg"}]
    (note,) = geometry_notes(images, records())
    assert note.startswith("1 of 9 images repeat a file")
