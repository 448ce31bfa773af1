"""ATSS R50-FPN with DR Loss and a centerness branch, 12 epochs.

Published in a comparison without its settings: those of focal loss, with the scores at the start of
the published RetinaNet.
"""

from ..common.atss_R_50_FPN_1x import dataloader, lr_multiplier, optimizer, train
from ..common.criteria import dr as _dr
from .atss_R_50_FPN_focal_1x import model

model.criterion = _dr.atss
model.head.prior_prob = 0.5
optimizer.lr = 0.01
