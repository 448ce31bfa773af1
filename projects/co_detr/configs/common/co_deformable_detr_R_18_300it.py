r"""Slim Co-Deformable-DETR R18 on small images, for a laptop CPU: minutes from scratch.

4 images per iteration, 300 iterations, learning rate 0.001, warm-up and cosine decay. Data,
optimizer and schedule are those of the slim Faster R-CNN.

    python train_net.py \
        --config-file projects/co_detr/configs/quick/co_deformable_detr_R_18_brs_300it.py
"""

from .....configs.common.faster_rcnn_R_18_FPN_300it import (
    dataloader,
    lr_multiplier,
    optimizer,
    train,
)
from .....configs.common.models.faster_rcnn_slim_fpn import model as _faster_rcnn
from .co_deformable_detr import model

model.backbone = _faster_rcnn.backbone.bottom_up
model.backbone.out_features = ["res3", "res4", "res5"]
model.neck.update(input_shapes=[64, 128, 256], out_channels=64)
model.query_head.encoder.update(num_layers=2, ffn_dim=256)
model.query_head.decoder.update(num_layers=3, ffn_dim=256)
model.query_head.num_queries = 50
# Half the published sizes of anchors, for small images.
model.proposal_generator.anchor_generator.sizes = [
    [x * 2 ** (i / 3) for i in range(3)] for x in (16, 32, 64, 128, 256)
]
model.proposal_generator.pre_nms_topk = (500, 500)
model.roi_heads.box_head.fc_dims = [128, 128]
model.roi_heads.box_predictor.input_shape.channels = 128
model.dense_head.head.conv_dims = [64]
model.dense_head.anchor_generator.sizes = [[32], [64], [128], [256], [512]]
model.max_custom = 50
model.pixel_std = _faster_rcnn.pixel_std
