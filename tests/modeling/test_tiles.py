"""Detection in tiles: every object once, wherever the tiles cut it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import pairwise_intersection, pairwise_iou
from scipy import ndimage
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.modeling import TiledDetector
from brloss_d2.modeling.tiles import _survivors

SIDE = 24  # of the largest small square


class Blobs(nn.Module):
    """Detector of connected bright areas; the smaller the area, the better the score."""

    def __init__(self, *, masks: bool = True) -> None:
        super().__init__()
        self.masks, self.batches = masks, []

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        self.batches.append([(x["width"], x["height"]) for x in batch])
        return [{"instances": self._detect(x["image"])} for x in batch]

    def _detect(self, image: Tensor) -> Instances:
        areas, count = ndimage.label(image[0].numpy() > 127)
        slices = ndimage.find_objects(areas)
        boxes = [[x.start, y.start, x.stop, y.stop] for y, x in slices]
        masks = np.arange(1, count + 1)[:, None, None] == areas
        found = Instances(tuple(image.shape[1:]))
        found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4).float())
        found.scores = 1 / (1 + found.pred_boxes.area())
        found.pred_classes = torch.zeros(count, dtype=torch.int64)
        if self.masks:
            found.pred_masks = torch.from_numpy(masks)
        return found


def squares(height: int = 150, width: int = 210) -> tuple[Tensor, set[tuple[int, ...]]]:
    """An image with squares that do not touch, at random places in a grid, and their boxes."""
    random = np.random.default_rng(0)
    image, boxes = np.zeros((3, height, width), np.uint8), set()
    for y in range(0, height - 29, 30):
        for x in range(0, width - 29, 30):
            side = random.integers(4, SIDE + 1)
            x0, y0 = x + random.integers(29 - side), y + random.integers(29 - side)
            image[:, y0 : y0 + side, x0 : x0 + side] = 255
            boxes.add((x0, y0, x0 + side, y0 + side))
    return torch.from_numpy(image), boxes


def boxes_of(found: Instances) -> list[tuple[int, ...]]:
    return [tuple(map(int, box)) for box in found.pred_boxes.tensor.tolist()]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0.4), (50, 0.5), (100, 0.25), (37, 0.65)])
@pytest.mark.parametrize("whole", [True, False])
def test_every_object_is_found_once(tile: int, overlap: float, *, whole: bool) -> None:
    image, truth = squares()
    model = TiledDetector(Blobs(), [], tile=tile, overlap=overlap, whole=whole)
    (output,) = model([{"image": image}])
    found = output["instances"]
    assert sorted(boxes_of(found)) == sorted(truth)
    assert found.scores.diff().le(0).all()
    assert torch.equal(found.pred_masks.any(0), image[0] > 127)
    for (x0, y0, x1, y1), mask in zip(boxes_of(found), found.pred_masks, strict=True):
        assert mask[y0:y1, x0:x1].all() and mask.sum() == (x1 - x0) * (y1 - y0)


def test_an_object_larger_than_a_tile_is_found_in_the_whole_image() -> None:
    image = torch.zeros(3, 150, 210, dtype=torch.uint8)
    image[:, 10:140, 20:190] = 255

    def found(*, whole: bool) -> list[tuple[int, ...]]:
        model = TiledDetector(Blobs(masks=False), [], tile=64, overlap=0.4, whole=whole)
        return boxes_of(model([{"image": image}])[0]["instances"])

    assert found(whole=True) == [(20, 10, 190, 140)]
    assert len(found(whole=False)) == 10, "pieces"


def test_a_small_object_in_front_of_a_large_one_stays() -> None:
    """IoU decides, and the covered part only where a box may have been cut."""
    found = Instances((100, 100))
    found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 50, 50], [0, 0, 10, 10], [0, 0, 10, 10]]))
    found.scores = torch.tensor([0.5, 0.4, 0.9])
    found.pred_classes = torch.zeros(3, dtype=torch.int64)
    found.tile, found.cut = torch.tensor([0, 1, 1]), torch.tensor([False, False, True])
    assert _survivors(found, 0.5).tolist() == [0, 1]
    found.pred_classes = torch.tensor([0, 0, 1])
    assert _survivors(found, 0.5).tolist() == [2, 0, 1]
    found.tile = torch.zeros(3)  # what a tile says is the model's own affair
    assert len(_survivors(found, 0.5)) == 3


def test_a_small_image_is_handed_over_as_it_is() -> None:
    image, truth = squares(60, 90)
    blobs = Blobs()
    (output,) = TiledDetector(blobs, [], tile=90)([{"image": image}])
    assert set(boxes_of(output["instances"])) == truth and blobs.batches == [[(90, 60)]]
    nothing = TiledDetector(blobs, [], tile=20)([{"image": torch.zeros_like(image)}])
    assert len(nothing[0]["instances"]) == 0


@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 128, 1000])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.9])
def test_tiles_cover_an_image(length: int, overlap: float) -> None:
    tiles = TiledDetector(nn.Module(), [], tile=64, overlap=overlap).tiles(10, length)
    assert tiles[0].x0 == 0 and tiles[-1].x1 == length
    assert {t.x1 - t.x0 for t in tiles} == {min(64, length)}
    shared = [a.x1 - b.x0 for a, b in pairwise(tiles)]
    assert min(shared, default=64) >= 64 * overlap - 1
    assert max(tile.x1 for tile in tiles) == length


def test_batches() -> None:
    image, _ = squares()
    blobs = Blobs()
    TiledDetector(blobs, [], tile=100, batch_size=5)([{"image": image}])
    assert [len(batch) for batch in blobs.batches] == [5, 1, 1]
    assert blobs.batches[-1] == [(210, 150)]


@pytest.mark.parametrize("options", [{"tile": 0}, {"tile": 6.5}, {"tile": True}])
def test_wrong_sides(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"side of the tiles is .*: expected pixels, at least 1"):
        TiledDetector(nn.Module(), [], **options)


@pytest.mark.parametrize("overlap", [-0.1, 1, "a", float("nan")])
def test_wrong_overlaps(overlap: object) -> None:
    with pytest.raises(InputError, match=r"overlap of tiles is .*: expected 0 to 0\.9"):
        TiledDetector(nn.Module(), [], overlap=overlap)


def one_by_one(found: Instances, nms_thresh: float) -> list[int]:
    """Indices of the detections that are kept, by the definition: the best first."""
    order = torch.argsort(found.cut.float() * 2 - found.scores, stable=True).tolist()
    areas = found.pred_boxes.area().clamp(min=1e-6)
    kept: list[int] = []
    for j in order:
        for i in kept:
            pair = found.pred_boxes[i], found.pred_boxes[j]
            covered = pairwise_intersection(*pair) / areas[j]
            overlap = covered if found.cut[j] else pairwise_iou(*pair)
            same = found.pred_classes[i] == found.pred_classes[j]
            if same and found.tile[i] != found.tile[j] and overlap > nms_thresh:
                break
        else:
            kept.append(j)
    return sorted(kept, key=lambda j: -found.scores[j])


@pytest.mark.parametrize("count", [0, 1, 80])
def test_what_is_dropped_drops_nothing(count: int, monkeypatch) -> None:
    """Also in long rows of detections each of which repeats the one before it."""
    monkeypatch.setattr("brloss_d2.modeling.tiles._ROWS", 7)
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 5.0])
    found = Instances((100, 100), pred_boxes=Boxes(torch.cat([corner, corner + 20], dim=1)))
    found.scores = torch.rand(count, generator=generator)
    found.pred_classes = torch.randint(2, (count,), generator=generator)
    found.tile = torch.randint(4, (count,), generator=generator)
    found.cut = torch.rand(count, generator=generator) < 0.3
    kept = _survivors(found, 0.5).tolist()
    assert kept == one_by_one(found, 0.5)
    assert count < 80 or 5 < len(kept) < 60


def test_too_many_tiles() -> None:
    detector = TiledDetector(torch.nn.Identity(), [], tile=1)
    with pytest.raises(InputError, match=r"128 x 96 .* has [0-9,]+ tiles of 1: expected"):
        detector.tiles(96, 128)
