"""Co-Deformable-DETR Swin-T, 12 epochs of COCO: the published recipe, with more weight decay.

16 images per iteration, 88,716 iterations, learning rate 0.0002. Published box AP: focal 51.7, brs
52.3.

    python train_net.py --config-file projects/co_detr/configs/co_deformable_detr_swin_t_brs_1x.py
"""

from detectron2.config import LazyCall as L

from brloss_d2.projects.co_detr.modeling.swin import Swin

from .co_deformable_detr_R_50_1x import dataloader, model, optimizer, train

model.backbone = L(Swin)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    drop_path_rate=0.2,
    out_indices=[1, 2, 3],
)
model.neck.update(input_shapes=[192, 384, 768], in_features=["p1", "p2", "p3"])
optimizer.weight_decay = 0.05
train.init_checkpoint = "swin://swin_tiny_patch4_window7_224"
