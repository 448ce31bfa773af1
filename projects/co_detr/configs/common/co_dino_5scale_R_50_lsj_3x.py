"""Co-DINO R50 with five scales and large-scale jitter, 36 epochs of COCO.

16 images per iteration on a canvas of 1024 x 1024 pixels, 266,148 iterations, learning rate 0.0002,
a tenth of it from epoch 30 on. Published box AP: focal 54.8, with objects pasted from other images.

    python train_net.py --config-file projects/co_detr/configs/co_dino_5scale_R_50_brs_lsj_3x.py
"""

from .co_dino_5scale_R_50_lsj_1x import dataloader, model, optimizer, train
from .schedules import lr_multiplier_3x as lr_multiplier

train.max_iter = 36 * 7393
