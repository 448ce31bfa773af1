"""Detection in large images: overlapping tiles, whose detections are joined."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import detectron2.data.transforms as T
import torch
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import pairwise_intersection, pairwise_iou
from torch import Tensor, nn

from brloss_d2.errors import InputError

_ROWS = 1024  # detections that are compared with all others at a time
_MOST_TILES = 10_000  # of an image
_EDGE = 0.01  # part of a tile: a box that ends so close to an edge may be cut there


class Tile(NamedTuple):
    """Area of an image, in pixels; the ends are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


class TiledDetector(nn.Module):
    """Detector that looks at overlapping tiles of each image, and at the whole image.

    What objects of 10 pixels are in an image of 4000 pixels is gone when the image has the size of
    the test images; each tile is resized to that size instead. An object is then found in several
    tiles and in the whole image: of two detections of a class from different ones, the lower one is
    dropped if their boxes overlap. Detections that an edge of a tile may cut come last, and are
    dropped if a box covers much of them.

    An image no larger than a tile is handed over as it is.

    Args:
        model: detector with detectron2's formats; its detections have boxes, scores, classes and,
            possibly, masks of the size of the image.
        augmentations: detectron2's augmentations that resize a tile or an image.
        tile: side of the tiles in pixels of the image.
        overlap: part of a tile that it shares with the next one, at least, [0, 1). Objects that are
            smaller than the overlap are whole in a tile.
        whole: whether the whole image is looked at, too; larger objects are found there.
        batch_size: number of tiles per batch.
        nms_thresh: IoU, and for cut boxes the covered part, above which the lower one is dropped.

    Raises:
        InputError: the side or the overlap is out of range.

    Example:
        >>> from brloss_d2.modeling import TiledDetector
        >>> from torch import nn
        >>> TiledDetector(nn.Module(), [], tile=640, overlap=0.25).tiles(600, 1600)
        [Tile(x0=0, y0=0, x1=640, y1=600), ..., Tile(x0=960, y0=0, x1=1600, y1=600)]
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[T.Augmentation],
        *,
        tile: int = 640,
        overlap: float = 0.2,
        whole: bool = True,
        batch_size: int = 4,
        nms_thresh: float = 0.5,
    ):
        super().__init__()
        if not isinstance(tile, int) or isinstance(tile, bool) or tile < 1:
            raise InputError(f"The side of the tiles is {tile!r}: expected pixels, at least 1.")
        if not isinstance(overlap, int | float) or not 0 <= overlap <= 0.9:
            raise InputError(f"The overlap of tiles is {overlap!r}: expected 0 to 0.9 of a tile.")
        self.model, self.resize = model, T.AugmentationList(list(augmentations))
        self.tile, self.overlap, self.whole = tile, overlap, whole
        self.batch_size, self.nms_thresh = batch_size, nms_thresh
        self.train(model.training)

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of an image of this size in pixels, row by row.

        Raises:
            InputError: they are more than 10,000, as of a side that was meant to be another number.
        """
        rows, columns = self._starts(height), self._starts(width)
        if len(rows) * len(columns) > _MOST_TILES:
            raise InputError(
                f"An image of {width} x {height} pixels has {len(rows) * len(columns):,} tiles of "
                f"{self.tile}: expected at most {_MOST_TILES:,}."
            )
        return [
            Tile(x, y, min(x + self.tile, width), min(y + self.tile, height))
            for y in rows
            for x in columns
        ]

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detect objects.

        Args:
            batched_inputs: detectron2's dictionaries, each with an `image` of the original size.

        Returns:
            A dictionary per image with `instances` on the CPU, best first, in pixels of the image.
        """
        if torch.jit.is_tracing():
            raise InputError("A detector of tiles cannot be exported: leave the tiles out.")
        return [{"instances": self._detect(x["image"])} for x in batched_inputs]

    def _starts(self, length: int) -> list[int]:
        """Return where tiles begin along a side of an image, evenly spread."""
        rest = max(length - self.tile, 0)
        steps = math.ceil(rest / (self.tile * (1 - self.overlap)))
        return [round(rest * i / max(steps, 1)) for i in range(steps + 1)]

    def _detect(self, image: Tensor) -> Instances:
        height, width = image.shape[1:]
        tiles = self.tiles(height, width)
        batches = [tiles[i : i + self.batch_size] for i in range(0, len(tiles), self.batch_size)]
        if self.whole and len(tiles) > 1:
            batches.append([Tile(0, 0, width, height)])  # of another size, which would be padded
        found = [pair for batch in batches for pair in self._look_at(image, batch)]
        return found[0][1] if len(found) == 1 else self._join(found, (height, width))

    def _look_at(self, image: Tensor, tiles: Sequence[Tile]) -> list[tuple[Tile, Instances]]:
        """Return the detections in each tile, in pixels of the tile."""
        inputs = []
        for x0, y0, x1, y1 in tiles:
            view = T.AugInput(image[:, y0:y1, x0:x1].permute(1, 2, 0).cpu().numpy())
            self.resize(view)
            pixels = torch.from_numpy(view.image.transpose(2, 0, 1).copy())
            inputs.append({"image": pixels, "height": y1 - y0, "width": x1 - x0})
        outputs = self.model(inputs)
        return [
            (tile, output["instances"].to("cpu"))
            for tile, output in zip(tiles, outputs, strict=True)
        ]

    def _join(
        self, found: Sequence[tuple[Tile, Instances]], image_size: tuple[int, int]
    ) -> Instances:
        """Return the detections of all tiles that are kept, in pixels of the image."""
        placed, numbers = [], []
        for number, (tile, inside) in enumerate(found):
            offset = torch.tensor([tile.x0, tile.y0, tile.x0, tile.y0])
            placed.append(
                Instances(
                    image_size,
                    pred_boxes=Boxes(inside.pred_boxes.tensor + offset),
                    scores=inside.scores,
                    pred_classes=inside.pred_classes,
                    tile=torch.full((len(inside),), number),
                    cut=_is_cut(inside.pred_boxes.tensor, tile, image_size),
                )
            )
            numbers += [(number, i) for i in range(len(inside))]
        joined = Instances.cat(placed)
        kept = _survivors(joined, self.nms_thresh)
        detections = joined[kept]
        detections.remove("tile")
        detections.remove("cut")
        if found[0][1].has("pred_masks"):
            detections.pred_masks = torch.zeros(len(kept), *image_size, dtype=torch.bool)
            for mask, index in zip(detections.pred_masks, kept.tolist(), strict=True):
                number, i = numbers[index]
                (x0, y0, x1, y1), inside = found[number]
                mask[y0:y1, x0:x1] = inside.pred_masks[i]
        return detections


def _is_cut(boxes: Tensor, tile: Tile, image_size: tuple[int, int]) -> Tensor:
    """Say which boxes (N, 4) reach an edge of their tile that is not one of the image."""
    width, height = tile.x1 - tile.x0, tile.y1 - tile.y0
    x0, y0, x1, y1 = boxes.unbind(1)
    return (
        ((x0 < _EDGE * width) & (tile.x0 > 0))
        | ((y0 < _EDGE * height) & (tile.y0 > 0))
        | ((x1 > (1 - _EDGE) * width) & (tile.x1 < image_size[1]))
        | ((y1 > (1 - _EDGE) * height) & (tile.y1 < image_size[0]))
    )


def _survivors(found: Instances, nms_thresh: float) -> Tensor:
    """Return the indices of the detections that no better one of another tile repeats."""
    # Whole boxes first, then by score: a cut one never drops a whole one.
    order = torch.argsort(found.cut.float() * 2 - found.scores, stable=True)
    found = found[order]
    boxes, areas = found.pred_boxes, found.pred_boxes.area().clamp(min=1e-6)
    places = torch.arange(len(found))
    pairs = []
    for rows in places.split(_ROWS):
        overlaps = pairwise_iou(boxes[rows], boxes)
        covered = pairwise_intersection(boxes[rows], boxes) / areas
        repeats = torch.where(found.cut, covered, overlaps) > nms_thresh
        repeats &= found.pred_classes[rows, None] == found.pred_classes
        repeats &= (found.tile[rows, None] != found.tile) & (rows[:, None] < places)
        better, worse = repeats.nonzero(as_tuple=True)
        pairs.append((rows[better], worse))
    better, worse = (torch.cat(part) for part in zip(*pairs, strict=True))
    # A detection is dropped by a better one that is kept: each round settles one more in a row.
    kept, previous = torch.ones(len(found), dtype=torch.bool), None
    while previous is None or not torch.equal(kept, previous):
        previous = kept
        kept = torch.ones_like(kept)
        kept[worse[previous[better]]] = False
    return order[kept][found.scores[kept].argsort(descending=True, stable=True)]
