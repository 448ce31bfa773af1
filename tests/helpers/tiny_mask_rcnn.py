"""Config of a Mask R-CNN for any dataset, with iterations of a fraction of a second."""

from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler

from brloss_d2.engine import train_defaults
from brloss_d2.modeling import CriterionMaskHead

_COMMON = Path(__file__).parents[2] / "configs" / "common"
_brs = LazyConfig.load(str(_COMMON / "criteria.py")).brs
_slim = LazyConfig.load(str(_COMMON / "faster_rcnn_R_18_FPN_300it.py"))
model, optimizer, lr_multiplier = _slim.model, _slim.optimizer, _slim.lr_multiplier

model.proposal_generator.criterion = _brs.rpn
model.proposal_generator.update(post_nms_topk=(32, 16))
model.roi_heads.box_predictor.update(criterion=_brs.roi, test_score_thresh=0.0)
model.roi_heads.update(
    mask_in_features=["p2", "p3", "p4", "p5"],
    mask_pooler=L(ROIPooler)(
        output_size=14,
        scales=(1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    ),
    mask_head=L(CriterionMaskHead)(
        input_shape=L(ShapeSpec)(channels=64, width=14, height=14),
        criterion=_brs.mask,
        num_classes="${..num_classes}",
        conv_dims=[32, 32],
    ),
)
train = dict(train_defaults(), max_iter=3, log_period=1, eval_period=0, seed=1, num_threads=1)
