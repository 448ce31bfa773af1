"""Cascade R-CNN, R50, 36 epochs. The paper gives its result without a recipe: this is the published
one of the 36 epochs of Faster R-CNN (steps at 27 and 33, short side from 480 to 960).
"""

from .cascade_rcnn_R_50_FPN_1x import dataloader, model, optimizer, train
from .schedules import lr_multiplier_3x as lr_multiplier

dataloader.train.mapper.augmentations[0].short_edge_length = (480, 560, 640, 720, 800, 880, 960)
train.max_iter = 263880
