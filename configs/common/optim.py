"""Optimizers. `params.model` is filled in by the engine."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

sgd = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(),
    # For 16 images an iteration in ranking pools of 4.
    lr=0.012,
    momentum=0.9,
    weight_decay=1e-4,
)
adamw = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0), lr=1e-3, weight_decay=1e-4
)
