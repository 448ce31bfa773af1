"""RetinaNet R50-FPN with Rank & Sort Loss, 12 epochs.

Not published: the learning rate is that of ATSS.
"""

from ..common.criteria import rs as _rs
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _rs.retinanet
