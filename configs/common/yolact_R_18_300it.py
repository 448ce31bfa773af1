"""Slim YOLACT R18 on small images, for a laptop CPU: minutes from scratch.

4 images per iteration, 300 iterations, learning rate 0.003, warm-up and cosine decay. Data and
schedule are those of the slim Mask R-CNN; between the anchors of YOLACT are as many more.

    python train_net.py --config-file configs/quick/yolact_R_18_rs_300it.py
"""

from .mask_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, optimizer, train
from .models.yolact_fpn import model
from .slim import make_slim_backbone as _make_slim_backbone

_make_slim_backbone(model)
model.head.update(conv_dims=[64, 64], norm="GN", num_anchors=6)
model.anchor_generator.sizes = [[24, 34], [48, 68], [96, 136], [192, 272], [384, 543]]
model.prototype_net.conv_dims = [64, 64, 64]
# Ranking losses learn an order: after few iterations the right scores are still far below 0.05.
model.postprocessor.score_thresh = 0.001
optimizer.lr = 0.003
