"""RetinaNet with assignment by IoU, 100 epochs of COCO: the published recipe of AP and aLRP Loss.

32 images per iteration, 366,500 iterations, learning rate 0.008 (ap: 0.002), a tenth after epochs
60 and 80. Published box AP: ap 35.4, alrp 39.0. Images of 512 x 512 pixels, strongly augmented.

    python train_net.py --config-file configs/coco/retinanet_R_50_FPN_alrp_iou_500s_100e.py
"""

from .data.coco_512 import dataloader
from .models.retinanet_fpn import model
from .training import COCO_EPOCH, sgd

# Two scales per octave instead of three.
model.head.num_anchors = 6
model.anchor_generator.sizes = [[x, x * 2**0.5] for x in (32, 64, 128, 256, 512)]
optimizer, lr_multiplier, train = sgd(
    lr=0.008,
    epochs=100,
    drop_after=(60, 80),
    init_checkpoint="torchvision://resnet50",
    epoch=COCO_EPOCH // 2,
    eval_epochs=10,
)
