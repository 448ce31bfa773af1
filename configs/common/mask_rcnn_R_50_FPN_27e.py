"""Mask R-CNN, R50, 27 epochs. The paper gives its result without a recipe: steps at the same parts
of the training as in the others (20 and 25), scales as in the published 36 epochs.

27 epochs are no multiple of the 12 that "1x" stands for, hence the name.
"""

from .mask_rcnn_R_50_FPN_1x import dataloader, model, optimizer, train
from .schedules import lr_multiplier_27e as lr_multiplier

dataloader.train.mapper.augmentations[0].short_edge_length = (640, 672, 704, 736, 768, 800)
train.max_iter = 197910
