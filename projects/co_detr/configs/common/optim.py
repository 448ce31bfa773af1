"""AdamW as published: a tenth of the rate for backbone and sampling offsets; everything decays."""

import torch
from detectron2.config import LazyCall as L

from brloss_d2.engine import params_by_name

optimizer = L(torch.optim.AdamW)(
    params=L(params_by_name)(
        base_lr="${..lr}", lr_factors=dict(backbone=0.1, sampling_offsets=0.1)
    ),
    lr=2e-4,
    betas=(0.9, 0.999),
    weight_decay=1e-4,
)
