"""Co-Deformable-DETR Swin-L, 12 epochs of COCO: the published recipe.

16 images per iteration, 88,716 iterations, learning rate 0.0002. Published box AP: focal 56.9, brs
57.2. The backbone was pretrained on ImageNet-22k at 384 x 384 pixels.

    python train_net.py --config-file projects/co_detr/configs/co_deformable_detr_swin_l_brs_1x.py
"""

from .co_deformable_detr_swin_t_1x import dataloader, model, optimizer, train

model.backbone.update(
    embed_dim=192,
    depths=[2, 2, 18, 2],
    num_heads=[6, 12, 24, 48],
    window_size=12,
    drop_path_rate=0.3,
)
model.neck.input_shapes = [384, 768, 1536]
train.init_checkpoint = "swin://swin_large_patch4_window12_384_22k"
