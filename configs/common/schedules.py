"""Learning-rate schedules as fractions of the whole training."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

# Iterations of 16 images in an epoch of the published setting.
COCO_EPOCH = 7330
# Images repeated by the frequency of their rarest class, rounded up; the train set of LVIS v1.
LVIS_EPOCH = 7674
# Each image eight times.
CITYSCAPES_EPOCH = 1483


def _steps(epochs, milestones, epoch_iterations=COCO_EPOCH, warmup_iterations=500):
    """Divide the rate by 10 at each milestone (in epochs), after a linear warm-up from 0.001."""
    total = epochs * epoch_iterations
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**i for i in range(len(milestones) + 1)],
            milestones=[m * epoch_iterations for m in (*milestones, epochs)],
        ),
        warmup_length=warmup_iterations / total,
        warmup_factor=0.001,
    )


lr_multiplier_1x = _steps(12, (8, 11))
# 32 images an iteration.
lr_multiplier_100e = _steps(100, (75, 95), epoch_iterations=3665)
# Published without its milestones: those of 3x in proportion.
lr_multiplier_27e = _steps(27, (20, 25))
lr_multiplier_3x = _steps(36, (27, 33))
lr_multiplier_lvis_1x = _steps(12, (8, 11), LVIS_EPOCH)
lr_multiplier_cityscapes = _steps(12, (8,), CITYSCAPES_EPOCH)
lr_multiplier_cosine = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=0.1,
    warmup_factor=0.01,
)
