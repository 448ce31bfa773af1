"""The published recipe with a Swin-L, pretrained on ImageNet-22k at 384 x 384 pixels."""

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
