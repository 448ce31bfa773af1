"""RetinaNet R50-FPN, 12 epochs of COCO, on the recipe of ATSS.

16 images per iteration, 87,960 iterations, learning rate 0.008 (focal: 0.01, dr: 0.01, ap: 0.001,
alrp: 0.004), a tenth after epochs 8 and 11. Published box AP: dr 37.4, brs 38.3.

    python train_net.py --config-file configs/coco/retinanet_R_50_FPN_brs_1x.py
"""

from .data.coco import dataloader
from .models.retinanet_fpn import model
from .training import sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.008, epochs=12, drop_after=(8, 11), init_checkpoint="torchvision://resnet50"
)
