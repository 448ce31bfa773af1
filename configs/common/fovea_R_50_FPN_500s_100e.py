"""FoveaBox R50-FPN, 100 epochs of COCO: the published recipe of aLRP Loss.

32 images per iteration, 366,500 iterations, learning rate 0.008 (focal: 0.02, ap: 0.002), a tenth
after epochs 75 and 95. Published box AP: focal 38.3, ap 36.5, alrp 39.7. Images of 512 x 512
pixels, strongly augmented.

    python train_net.py --config-file configs/coco/fovea_R_50_FPN_alrp_500s_100e.py
"""

from .data.coco_512 import dataloader
from .models.fovea_fpn import model
from .training import COCO_EPOCH, sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.008,
    epochs=100,
    drop_after=(75, 95),
    init_checkpoint="torchvision://resnet50",
    epoch=COCO_EPOCH // 2,
    eval_epochs=10,
)
