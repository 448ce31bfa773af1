"""Learning-rate schedules as fractions of the whole training, without warm-up."""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

# Iterations of 16 images in an epoch; images without objects count.
COCO_EPOCH = 7393


def _steps(epochs, milestones, factor):
    """Multiply the rate by `factor` at each milestone (in epochs)."""
    return L(MultiStepParamScheduler)(
        values=[factor**i for i in range(len(milestones) + 1)],
        milestones=[m * COCO_EPOCH for m in (*milestones, epochs)],
    )


lr_multiplier_1x = _steps(12, (11,), 0.1)
lr_multiplier_16e = _steps(16, (8,), 0.1)
lr_multiplier_2x = _steps(24, (20,), 0.1)
lr_multiplier_3x = _steps(36, (30,), 0.1)
lr_multiplier_ranking_1x = _steps(12, (10, 11), 0.2)
