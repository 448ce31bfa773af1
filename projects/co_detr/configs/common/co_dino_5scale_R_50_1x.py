"""Co-DINO R50 with five scales, 12 epochs of COCO: the published recipe.

16 images per iteration, 88,716 iterations, learning rate 0.0002; the schedule is left to the leaf.
Published box AP: focal 52.1.

    python train_net.py --config-file projects/co_detr/configs/co_dino_5scale_R_50_brs_1x.py
"""

from .co_deformable_detr_R_50_1x import dataloader, optimizer, train
from .co_dino import model

# Of the backbone alone; sampling offsets learn as fast as all else.
del optimizer.params.lr_factors.sampling_offsets
