"""YOLACT with any loss of `criteria.py`, and what else belongs to the loss."""

from detectron2.config import LazyCall as L

from brloss_d2.criteria import SigmoidCriterion
from brloss_d2.model_zoo import get_criterion
from brloss_d2.modeling import SemanticHead
from brloss_d2.utils.config_nodes import target_of


def use_loss(model, name):
    """Train classes and boxes, and the masks, with a loss.

    Cross-entropy has a background class and, in training, a semantic head. Sums over sigmoids have
    to start from low scores; ranking losses do not depend on them.
    """
    criterion = get_criterion(name, "yolact")
    softmax = name == "ce"
    summed = target_of(criterion) is SigmoidCriterion and name != "dr"
    model.update(
        criterion=criterion,
        mask_criterion=get_criterion(name, "yolact_mask"),
        semantic_head=None,
        masks_by_area=False,
    )
    model.head.update(has_background=softmax, prior_prob=0.01 if summed else 0.5)
    if softmax:
        model.semantic_head = L(SemanticHead)(
            in_channels="${..backbone.out_channels}", num_classes="${..num_classes}"
        )
