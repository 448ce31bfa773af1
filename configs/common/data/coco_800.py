"""COCO at 800 x 800 with the augmentation of `coco_512`: the larger setting of aLRP Loss."""

from .coco_512 import dataloader

dataloader.train.mapper.augmentations[3].shape = [800, 800]
dataloader.train.total_batch_size = 16
dataloader.test.mapper.augmentations[0].update(short_edge_length=800, max_size=1333)
