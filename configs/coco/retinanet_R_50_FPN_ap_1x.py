"""RetinaNet R50-FPN with AP Loss, 12 epochs.

Not published: the rate for an image is that of the published 100 epochs at 512 x 512 pixels.
"""

from ..common.one_stage_criteria import retinanet as _criteria
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _criteria.ap
optimizer.lr = 0.001
