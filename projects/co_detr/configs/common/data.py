"""COCO with DETR's augmentation: one of eleven sizes, or a crop of an image resized before.

Images without objects are used too.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from brloss_d2.projects.co_detr.data import MinBoxSizeMapper, OneOf

from .....configs.common.data.coco import dataloader


def _resize(*short_sides, max_size):
    return L(T.ResizeShortestEdge)(
        short_edge_length=short_sides, sample_style="choice", max_size=max_size
    )


_final = _resize(*range(480, 801, 32), max_size=1333)
dataloader.train.dataset.filter_empty = False
dataloader.train.mapper = L(MinBoxSizeMapper)(
    min_box_size=1.0,
    is_train=True,
    augmentations=[
        L(T.RandomFlip)(horizontal=True),
        L(OneOf)(
            policies=[
                [_final],
                [
                    _resize(400, 500, 600, max_size=4200),
                    L(T.RandomCrop)(crop_type="absolute_range", crop_size=(384, 600)),
                    _final,
                ],
            ]
        ),
    ],
    image_format="RGB",
)
