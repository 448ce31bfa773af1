"""PAA R50-FPN, 12 epochs of COCO: the published recipe of RS and BRS.

16 images per iteration, 87,960 iterations, learning rate 0.008 (focal: 0.01), a tenth after epochs
8 and 11. Published box AP: focal 40.4, ap 37.3, bap 37.2, rs 40.8, brs 40.9.

    python train_net.py --config-file configs/coco/paa_R_50_FPN_brs_1x.py
"""

from .data.coco import dataloader
from .models.paa_fpn import model
from .training import sgd

optimizer, lr_multiplier, train = sgd(
    lr=0.008, epochs=12, drop_after=(8, 11), init_checkpoint="torchvision://resnet50"
)
