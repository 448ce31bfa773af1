"""Slim Faster R-CNN R18-FPN on small images, for a laptop CPU: minutes from scratch.

4 images per iteration, 300 iterations, learning rate 0.001, warm-up and cosine decay. Images keep
their size up to a short side of 128 pixels. Bring a custom dataset (`data.train=...`) and raise
`data.short_side` and `train.epochs`.

    python train_net.py --config-file configs/quick/faster_rcnn_R_18_FPN_brs_300it.py
"""

from .data.coco import dataloader
from .models.faster_rcnn_slim_fpn import model
from .training import adamw_cosine

dataloader.train.update(total_batch_size=4, num_workers=1)
dataloader.train.mapper.augmentations[0].update(short_edge_length=(128,), max_size=320)
dataloader.test.update(num_workers=1)
dataloader.test.mapper.augmentations[0].update(short_edge_length=128, max_size=320)

optimizer, lr_multiplier, train = adamw_cosine(lr=1e-3, iterations=300)
