"""RetinaNet R50-FPN with Bucketed Rank & Sort Loss, 12 epochs.

The result was published, the recipe was not: the learning rate is that of ATSS.
"""

from ..common.criteria import brs as _brs
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _brs.retinanet
