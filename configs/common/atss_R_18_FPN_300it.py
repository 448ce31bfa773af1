"""The slim ATSS on small images: a try-out for a laptop CPU, minutes from scratch.

Data, optimizer and schedule are those of the slim Faster R-CNN.
"""

from .faster_rcnn_R_18_FPN_300it import dataloader, lr_multiplier, optimizer, train
from .models.atss_fpn import model
from .slim import make_slim as _make_slim

_make_slim(model)
