r"""Co-DINO Swin-L with five scales, 16 epochs of COCO after Objects365.

16 images per iteration, 118,288 iterations, learning rate 0.0001, a tenth of it from epoch 8 on.
Larger images than in the recipe of 12 epochs, more denoising queries and less noise in their boxes.
Published box AP: focal 64.1. `train.init_checkpoint` is the file of a Co-DINO trained on
Objects365, the published one after `tools/convert_checkpoint.py` or your own.

    python train_net.py train.init_checkpoint=objects365.pth \
        --config-file projects/co_detr/configs/co_dino_5scale_swin_l_focal_o365_16e.py
"""

from .co_dino_5scale_swin_l_1x import dataloader, model, optimizer, train
from .schedules import lr_multiplier_16e as lr_multiplier

model.query_head.denoising.update(num_queries=500, box_noise=0.4)
model.proposal_generator.padding_divisor = model.dense_head.matcher.padding_divisor = 32
optimizer.lr = 1e-4
train.init_checkpoint = "co_dino_5scale_swin_l_objects365.pth"
train.max_iter = 16 * 7393

for _policy in dataloader.train.mapper.augmentations[1].policies:
    _policy[-1].update(short_edge_length=list(range(480, 1537, 32)), max_size=2048)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1280, max_size=2048)
