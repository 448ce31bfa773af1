"""RetinaNet R50-FPN with AP Loss, 12 epochs, at the rate of the published 100 per image."""

from ..common.one_stage_criteria import retinanet as _criteria
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _criteria.ap
optimizer.lr = 0.001
