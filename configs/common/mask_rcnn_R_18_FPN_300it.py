"""Slim Mask R-CNN R18-FPN on small images, for a laptop CPU: minutes from scratch.

4 images per iteration, 300 iterations, learning rate 0.001, warm-up and cosine decay. Optimizer and
schedule are those of the slim Faster R-CNN; the annotations need masks.

    python train_net.py --config-file configs/quick/mask_rcnn_R_18_FPN_rs_300it.py
"""

from .faster_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, optimizer, train
from .models.mask_rcnn_slim_fpn import model

dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
