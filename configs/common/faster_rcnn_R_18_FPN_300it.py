"""The slim Faster R-CNN on small images: a try-out for a laptop CPU, minutes from scratch.

Images keep their size up to a short side of 128 pixels. Bring your own data (`data.train=...`)
and raise `dataloader.*.mapper.augmentations.0.short_edge_length` and `train.max_iter`.
"""

from brloss_d2.engine import train_defaults

from .data.coco import dataloader
from .models.faster_rcnn_slim_fpn import model
from .optim import adamw as optimizer
from .schedules import lr_multiplier_cosine as lr_multiplier

dataloader.train.update(total_batch_size=4, num_workers=1)
dataloader.train.mapper.augmentations[0].update(short_edge_length=(128,), max_size=320)
dataloader.test.update(num_workers=1)
dataloader.test.mapper.augmentations[0].update(short_edge_length=128, max_size=320)

train = dict(train_defaults(), max_iter=300, clip_grad_norm=5.0, eval_period=0, seed=1)
