"""COCO at 512 x 512 with the strong augmentation of SSD: the 100-epoch setting of aLRP Loss."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from brloss_d2.data import (
    BoxAwareMapper,
    Expand,
    MinIoUCrop,
    PhotometricDistortion,
)

from .coco import dataloader

dataloader.train.mapper = L(BoxAwareMapper)(
    is_train=True,
    augmentations=[
        L(PhotometricDistortion)(),
        L(Expand)(max_ratio=4.0, prob=0.5, fill=[123.675, 116.28, 103.53]),
        L(MinIoUCrop)(),
        L(T.Resize)(shape=[512, 512]),
        L(T.RandomFlip)(horizontal=True),
    ],
    image_format="RGB",
)
dataloader.train.total_batch_size = 32
dataloader.test.mapper.augmentations[0].update(short_edge_length=500, max_size=833)
