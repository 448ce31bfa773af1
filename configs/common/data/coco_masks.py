"""COCO as in `coco`, with the masks of the training images."""

from .coco import dataloader

dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
