"""RetinaNet R50-FPN with Bucketed Rank & Sort Loss, 12 epochs.

The result was published, the recipe was not: the rate is that of ATSS.
"""

from ..common.one_stage_criteria import retinanet as _criteria
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _criteria.brs
