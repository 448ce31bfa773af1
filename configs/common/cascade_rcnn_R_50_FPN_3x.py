"""Cascade R-CNN R50-FPN, 36 epochs of COCO.

16 images per iteration, 263,880 iterations, learning rate 0.012 (ce: 0.02), a tenth after epochs 27
and 33. Published box AP: brs 42.3. The paper gives its result without a recipe: drops and scales
are those of the 36 epochs of Faster R-CNN, short side from 480 to 960.

    python train_net.py --config-file configs/coco/cascade_rcnn_R_50_FPN_brs_3x.py
"""

from .data.coco import dataloader
from .models.cascade_rcnn_fpn import model
from .training import sgd

dataloader.train.mapper.augmentations[0].short_edge_length = (480, 560, 640, 720, 800, 880, 960)
optimizer, lr_multiplier, train = sgd(
    lr=0.012, epochs=36, drop_after=(27, 33), init_checkpoint="torchvision://resnet50"
)
