"""PAA with a ResNet-50 and FPN, laid out for the ranking losses.

It is ATSS except for the assignment, which uses the predictions, and for score voting. The leaf
sets the criterion.
"""

from detectron2.config import LazyCall as L

from brloss_d2.losses import GIoULoss, SigmoidFocalLoss
from brloss_d2.modeling import MaxIoUAssigner, MaxIoUMatcher, PAAAssigner, ScoreVoting

from .atss_fpn import model

model.assigner = L(PAAAssigner)(
    candidates=L(MaxIoUAssigner)(
        matcher=L(MaxIoUMatcher)(thresholds=[0.1], labels=[0, 1], min_low_quality_iou=1e-6)
    ),
    topk=9,
    cls_loss=L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0),
    box_loss=L(GIoULoss)(),
    box_weight=1.0,
)
model.postprocessor.voting = L(ScoreVoting)(sigma=0.025, min_iou=0.01)
