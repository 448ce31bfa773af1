"""Co-DINO R50 with five scales and large-scale jitter, 36 epochs of COCO.

16 images per iteration, 266,148 iterations, learning rate 0.0002, a tenth of it from epoch 30 on.
The canvas has 1024 x 1024 pixels. Published box AP: focal 54.8, focal 55.4; both with objects
pasted from other images, the second with nine layers in the encoder.

    python train_net.py --config-file projects/co_detr/configs/co_dino_5scale_R_50_brs_lsj_3x.py
"""

from .co_dino_5scale_R_50_lsj_1x import dataloader, model, optimizer, train
from .schedules import lr_multiplier_3x as lr_multiplier

train.max_iter = 36 * 7393
