r"""Slim Co-DINO R18 on small images, for a laptop CPU: minutes from scratch.

Four scales, 4 images per iteration, 300 iterations, learning rate 0.001, warm-up and cosine decay.
All else is that of the slim Co-Deformable-DETR.

    python train_net.py --config-file projects/co_detr/configs/quick/co_dino_R_18_brs_300it.py
"""

from .co_deformable_detr_R_18_300it import dataloader, lr_multiplier, model, optimizer, train
from .co_dino import use_dino as _use_dino

_use_dino(model)
