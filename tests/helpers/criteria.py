"""Criteria of the packaged configs by name."""

from detectron2.config import instantiate

from brloss_d2.criteria import Criterion
from brloss_d2.model_zoo import get_criterion, list_criteria

RCNN_CRITERIA = list_criteria("roi")
ONE_STAGE = ("atss", "paa", "retinanet", "fovea")
ONE_STAGE_CRITERIA = list_criteria("atss")


def build_criterion(name: str, site: str, *, pools_per_epoch: int = 7330) -> Criterion:
    """Build a criterion for a site; `pools_per_epoch` counts for aLRP Loss alone."""
    node = get_criterion(name, site)
    if "pools_per_epoch" in node.get("balancer", {}):
        node.balancer.pools_per_epoch = pools_per_epoch
    return instantiate(node)
