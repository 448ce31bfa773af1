"""A detector without convolutions, whose right answers are known."""

from typing import Any

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

SQUARE = (8, 4, 24, 20)  # XYXY


def square_image() -> np.ndarray:
    """Dark, 48 x 32 pixels, with a bright square."""
    image = np.full((32, 48, 3), 20, dtype=np.uint8)
    x0, y0, x1, y1 = SQUARE
    image[y0:y1, x0:x1] = 220
    return image


class BrightSquares(nn.Module):
    """Finds what is brighter than half, as one object of class 1, and its mask.

    Its score is `scale` times the strongest blue of that object, in 0..1. Beside it there is a
    second object, the left half of it, of class 0 with half the score.
    """

    def __init__(self, num_classes: int, score_thresh: float):
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
