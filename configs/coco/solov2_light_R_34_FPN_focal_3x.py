"""SOLOv2-light R34-FPN with Focal Loss, 36 epochs."""

from ..common.criteria import focal as _focal
from ..common.solov2_light_R_34_FPN_3x import dataloader, lr_multiplier, model, optimizer, train

model.update(criterion=_focal.solov2, mask_criterion=_focal.solov2_mask)
model.assigner.first_wins = False
model.postprocessor.score_thresh = 0.1
optimizer.lr = 0.02
