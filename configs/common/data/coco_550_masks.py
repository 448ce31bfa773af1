"""COCO at 550 x 550 with masks, strongly augmented: the setting of YOLACT."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .coco_512 import dataloader

dataloader.train.mapper.update(min_side=4, use_instance_mask=True, instance_mask_format="bitmask")
dataloader.train.mapper.augmentations[1].fill = [123.68, 116.78, 103.94]
dataloader.train.mapper.augmentations[3].shape = [550, 550]
dataloader.test.mapper.augmentations = [L(T.Resize)(shape=[550, 550])]
