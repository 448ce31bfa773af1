"""COCO with large-scale jitter (Ghiasi et al., CVPR 2021), on the canvas of the model.

Images are resized to 0.1 to 2 times the canvas and cropped to it; `model.canvas_size` pads them.
As published but for the objects that are pasted from other images, which needs masks.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .data import dataloader

_SIDE = "${model.canvas_size}"

dataloader.train.mapper.augmentations = [
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_SIDE, target_width=_SIDE),
    L(T.FixedSizeCrop)(crop_size=[_SIDE, _SIDE], pad=False),
    L(T.RandomFlip)(horizontal=True),
]
# The largest size that fits on the canvas.
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=_SIDE, max_size=_SIDE)
]
