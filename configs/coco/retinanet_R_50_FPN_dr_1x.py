"""RetinaNet R50-FPN with DR Loss and smooth L1, 12 epochs.

As published: no ignored anchors, scores of 0.5 at the start, learning rate 0.01, detections above
0.2.
"""

from detectron2.config import LazyCall as _L

from brloss_d2.modeling import TopPairs as _TopPairs

from ..common.criteria import dr as _dr
from ..common.retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.merge_with(
    dict(
        criterion=_dr.retinanet,
        head=dict(prior_prob=0.5),
        assigner=dict(matcher=dict(thresholds=[0.5], labels=[0, 1])),
        postprocessor=dict(select=_L(_TopPairs)(topk=1000, score_thresh=0.2)),
    )
)
optimizer.lr = 0.01
