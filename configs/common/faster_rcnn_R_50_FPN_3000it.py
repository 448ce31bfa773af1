"""Faster R-CNN R50-FPN for a custom dataset on one GPU, between the slim detectors and the recipes.

4 images per iteration, 3,000 iterations, learning rate 0.003, a tenth after 2,000 and 2,750. The
backbone starts from ImageNet; short sides of 480 to 640 pixels in training, 640 in evaluation. Rate
per image and ranking pools are those of the recipes of COCO. `train.epochs` changes the length.

    python train_net.py --config-file configs/quick/faster_rcnn_R_50_FPN_rs_3000it.py
"""

from .data.coco import dataloader
from .models.faster_rcnn_fpn import model
from .training import sgd

dataloader.train.total_batch_size = 4
dataloader.train.mapper.augmentations[0].update(
    short_edge_length=(480, 512, 544, 576, 608, 640), max_size=1066
)
dataloader.test.mapper.augmentations[0].update(short_edge_length=640, max_size=1066)
# After so few iterations the scores are lower than those of the recipes.
model.roi_heads.box_predictor.test_score_thresh = 0.05
optimizer, lr_multiplier, train = sgd(
    lr=0.003,
    epochs=12,
    drop_after=(8, 11),
    init_checkpoint="torchvision://resnet50",
    epoch=250,
    eval_epochs=2,
)
