"""ATSS R50-FPN for a custom dataset on one GPU, between the slim detectors and the recipes.

4 images per iteration, 3,000 iterations, learning rate 0.002, a tenth after 2,000 and 2,750. Data
and schedule are those of the Faster R-CNN of this length.

    python train_net.py --config-file configs/quick/atss_R_50_FPN_rs_3000it.py
"""

from .faster_rcnn_R_50_FPN_3000it import dataloader, lr_multiplier, optimizer, train
from .models.atss_fpn import model

optimizer.lr = 0.002
