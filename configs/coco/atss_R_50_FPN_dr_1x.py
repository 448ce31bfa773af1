"""ATSS R50-FPN with DR Loss and a centerness branch, 12 epochs.

Published in a comparison without its settings: those of focal loss, with the scores at the start of
the published RetinaNet.
"""

from ..common.criteria import dr as _dr
from .atss_R_50_FPN_focal_1x import dataloader, lr_multiplier, model, optimizer, train

model.criterion = _dr.atss
model.head.prior_prob = 0.5
