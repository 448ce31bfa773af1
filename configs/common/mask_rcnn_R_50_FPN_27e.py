"""Mask R-CNN R50-FPN, 27 epochs of COCO.

16 images per iteration, 197,910 iterations, learning rate 0.012 (ce: 0.02), a tenth after epochs 20
and 25. Published mask AP: brs 37.3. The paper gives its result without a recipe: drops at the same
parts of the training as in the others, scales as in the published 36 epochs, short side from 640 to
800. 27 epochs are no multiple of the 12 that "1x" stands for, hence the name.

    python train_net.py --config-file configs/coco/mask_rcnn_R_50_FPN_brs_27e.py
"""

from .data.coco_masks import dataloader
from .models.mask_rcnn_fpn import model
from .training import sgd

dataloader.train.mapper.augmentations[0].short_edge_length = (640, 672, 704, 736, 768, 800)
optimizer, lr_multiplier, train = sgd(
    lr=0.012, epochs=27, drop_after=(20, 25), init_checkpoint="torchvision://resnet50"
)
