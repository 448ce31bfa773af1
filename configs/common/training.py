"""How a recipe trains: `optimizer, lr_multiplier, train = sgd(...)`.

`optimizer.params.model` is filled in by the engine. Schedules are fractions of the whole training,
and follow if `train.max_iter` is changed.
"""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

from brloss_d2.engine import StepCosineParamScheduler, params_by_name, train_defaults

# Iterations of 16 images per epoch of COCO in the published setting.
COCO_EPOCH = 7330
# Images repeated by the frequency of their rarest class, rounded up; the train set of LVIS v1.
LVIS_EPOCH = 7674
# Each image eight times.
CITYSCAPES_EPOCH = 1483


def sgd(
    *,
    lr,
    epochs,
    drop_after,
    init_checkpoint,
    epoch=COCO_EPOCH,
    eval_epochs=1,
    weight_decay=1e-4,
    warmup_factor=0.001,
    clip_grad_norm=0.0,
):
    """SGD with a linear warm-up of 500 iterations and drops of the rate to a tenth.

    Args:
        lr: learning rate, for 16 images per iteration in ranking pools of 4 unless the recipe says
            otherwise.
        epochs: length of the training.
        drop_after: epochs after which the rate drops; None for cosine decay, epoch by epoch.
        init_checkpoint: weights to start from.
        epoch: iterations per epoch.
        eval_epochs: epochs from one evaluation to the next.
        weight_decay: weight decay of all parameters.
        warmup_factor: what the rate starts with, as a fraction of `lr`.
        clip_grad_norm: largest L2 norm of the gradient; 0 for no clipping.
    """
    total = epochs * epoch
    optimizer = L(torch.optim.SGD)(
        params=L(params_by_name)(base_lr="${..lr}"), lr=lr, momentum=0.9, weight_decay=weight_decay
    )
    lr_multiplier = L(WarmupParamScheduler)(
        scheduler=L(StepCosineParamScheduler)(num_steps=epochs)
        if drop_after is None
        else L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(drop_after) + 1)],
            milestones=[m * epoch for m in (*drop_after, epochs)],
        ),
        warmup_length=500 / total,
        warmup_factor=warmup_factor,
    )
    train = dict(
        train_defaults(),
        max_iter=total,
        init_checkpoint=init_checkpoint,
        eval_period=eval_epochs * epoch,
        clip_grad_norm=clip_grad_norm,
    )
    return optimizer, lr_multiplier, train


def adamw_cosine(*, lr, iterations):
    """AdamW with warm-up and cosine decay, from scratch, for detectors that train in minutes."""
    optimizer = L(torch.optim.AdamW)(
        params=L(params_by_name)(base_lr="${..lr}", weight_decay_norm=0.0),
        lr=lr,
        weight_decay=1e-4,
    )
    lr_multiplier = L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
        warmup_length=0.1,
        warmup_factor=0.01,
    )
    train = dict(train_defaults(), max_iter=iterations, clip_grad_norm=5.0, eval_period=0, seed=1)
    return optimizer, lr_multiplier, train
