"""RetinaNet with the assigner of ATSS, 100 epochs of COCO: the published recipe of aLRP Loss.

32 images per iteration, 366,500 iterations, learning rate 0.008, a tenth after epochs 75 and 95.
Published box AP: alrp R_50 41.0, alrp R_101 42.2, alrp X_101_64x4d 44.5. Images of 512 x 512
pixels, strongly augmented.

    python train_net.py --config-file configs/coco/retinanet_R_50_FPN_alrp_500s_100e.py
"""

from .data.coco_512 import dataloader
from .models.retinanet_atss_fpn import model
from .training import COCO_EPOCH, sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.008,
    epochs=100,
    drop_after=(75, 95),
    init_checkpoint="torchvision://resnet50",
    epoch=COCO_EPOCH // 2,
    eval_epochs=10,
)
