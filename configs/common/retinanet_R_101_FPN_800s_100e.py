"""RetinaNet with the assigner of ATSS, 100 epochs at 800 pixels: the published recipe of aLRP Loss.

16 images per iteration, 733,000 iterations, learning rate 0.004, a tenth after epochs 60 and 80.
Published box AP: alrp R_101 45.4, alrp X_101_64x4d 47.2, alrp X_101_64x4d_DCN 48.6. Images of
800 x 800 pixels, strongly augmented.

    python train_net.py --config-file configs/coco/retinanet_R_101_FPN_alrp_800s_100e.py
"""

from .data.coco_800 import dataloader
from .models.retinanet_atss_fpn import model
from .training import sgd

model.backbone.bottom_up.stages.depth = 101
# Three scales per octave instead of two.
model.head.num_anchors = 3
model.anchor_generator.sizes = [
    [x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (32, 64, 128, 256, 512)
]
optimizer, lr_multiplier, train = sgd(
    lr=0.004,
    epochs=100,
    drop_after=(60, 80),
    init_checkpoint="torchvision://resnet101",
    eval_epochs=10,
)
