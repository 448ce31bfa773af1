"""Detector without convolutions whose correct detections are known."""

from typing import Any

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

SQUARE = (8, 4, 24, 20)  # XYXY


def square_image() -> np.ndarray:
    """Return a dark image of 48 x 32 pixels with a bright square, (32, 48, 3) uint8."""
    image = np.full((32, 48, 3), 20, dtype=np.uint8)
    x0, y0, x1, y1 = SQUARE
    image[y0:y1, x0:x1] = 220
    return image


class BrightSquares(nn.Module):
    """Detector of the bright pixels, as one object of class 1 with a mask.

    The score is `scale` times the strongest blue of the object, in [0, 1]. The left half of the
    object is a second object, of class 0 with half the score.

    Args:
        num_classes: number of classes.
        score_thresh: lowest score of a detection, exclusive.
    """

    def __init__(self, num_classes: int, score_thresh: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))
        self.num_classes, self.score_thresh = num_classes, score_thresh
        self.batch_sizes: list[int] = []

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        self.batch_sizes.append(len(batch))
        return [self._detect(**inputs) for inputs in batch]

    def _detect(self, image: torch.Tensor, height: int, width: int) -> dict[str, Instances]:
        bright = image.float().mean(0) > 127
        found = Instances(tuple(image.shape[1:]))
        if not bright.any():
            boxes, scores = torch.zeros(0, 4), torch.zeros(0)
        else:
            ys, xs = bright.nonzero(as_tuple=True)
            x0, y0, x1, y1 = (int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
            boxes = torch.tensor([[x0, y0, x1, y1], [x0, y0, (x0 + x1) / 2, y1]]).float()
            blue = image[0][bright].float().max() / 255  # BGR
            scores = self.scale * torch.stack([blue, blue / 2])
        found.pred_boxes, found.scores = Boxes(boxes), scores
        found.pred_classes = torch.tensor([1, 0])[: len(scores)]
        found.pred_masks = torch.ones(len(scores), 1, 28, 28)
        kept = found[found.scores > self.score_thresh]
        return {"instances": detector_postprocess(kept, height, width)}
