"""Slim FoveaBox R18-FPN on small images, for a laptop CPU: minutes from scratch.

4 images per iteration, 300 iterations, learning rate 0.001, warm-up and cosine decay. Data,
optimizer and schedule are those of the slim Faster R-CNN.

    python train_net.py --config-file configs/quick/fovea_R_18_FPN_brs_300it.py
"""

from .faster_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, optimizer, train
from .models.fovea_fpn import model
from .slim import make_slim as _make_slim

_make_slim(model)
