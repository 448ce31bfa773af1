"""RetinaNet R50-FPN with aLRP Loss, 12 epochs.

Not published: the learning rate per image is that of the published 100 epochs at 512 x 512 pixels.
"""

from ..common.criteria import alrp as _alrp
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _alrp.retinanet
optimizer.lr = 0.004
