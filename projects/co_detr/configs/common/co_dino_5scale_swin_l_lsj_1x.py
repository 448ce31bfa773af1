"""Co-DINO Swin-L with five scales and large-scale jitter, 12 epochs of COCO.

16 images per iteration, 88,716 iterations, learning rate 0.0002; the schedule is left to the leaf.
The canvas has 1280 x 1280 pixels. Published box AP: focal 59.3; with objects pasted from other
images.

    python train_net.py --config-file projects/co_detr/configs/co_dino_5scale_swin_l_focal_lsj_1x.py
"""

from .co_dino_5scale_swin_l_1x import model, optimizer, train
from .data_lsj import dataloader

model.canvas_size = 1280
