"""Co-DINO Swin-L with five scales, 12 epochs of COCO: the published recipe.

16 images per iteration, 88,716 iterations, learning rate 0.0002; the schedule is left to the leaf.
Published box AP: focal 58.9. The backbone was pretrained on ImageNet-22k at 384 x 384 pixels. All
layers of the encoder are computed again in the backward pass, as published.

    python train_net.py --config-file projects/co_detr/configs/co_dino_5scale_swin_l_brs_1x.py
"""

from .co_deformable_detr_swin_l_1x import model as _co_deformable_detr
from .co_dino_5scale_R_50_1x import dataloader, model, optimizer, train

model.backbone = _co_deformable_detr.backbone
model.backbone.out_indices = [0, 1, 2, 3]
model.neck.update(input_shapes=[192, 384, 768, 1536], in_features=["p0", "p1", "p2", "p3"])
model.query_head.encoder.num_recomputed = 6
train.init_checkpoint = "swin://swin_large_patch4_window12_384_22k"
