"""Mask R-CNN R50-FPN, 12 epochs of Cityscapes: the published recipe of RS and BRS.

16 images per iteration, 17,796 iterations, learning rate 0.012 (ce: 0.02), a tenth after epoch 8.
Published box AP: ce 40.9, rs 43.7, brs 43.3; mask AP: ce 36.4, rs 38.2, brs 38.5. Each image eight
times per epoch, short side from 800 to 1024.

It starts from a Mask R-CNN trained on COCO: `train.init_checkpoint=FILE`, the checkpoint of a run
of `coco/mask_rcnn_R_50_FPN_*_1x` or one of mmdetection after `tools/convert_checkpoint.py`. The
last layers of the box and mask branches, whose shapes depend on the number of classes, start from
scratch; all else is taken over. Repetition and start are those of the base config that the
published one names; no more is known of how its numbers came about.

    python train_net.py --config-file configs/cityscapes/mask_rcnn_R_50_FPN_brs.py
"""

from .data.cityscapes import dataloader
from .models.mask_rcnn_fpn import model
from .training import CITYSCAPES_EPOCH, sgd

model.roi_heads.num_classes = 8
optimizer, lr_multiplier, train = sgd(
    lr=0.012,
    epochs=12,
    drop_after=(8,),
    init_checkpoint="coco_mask_rcnn_R_50_FPN.pth",
    epoch=CITYSCAPES_EPOCH,
)
