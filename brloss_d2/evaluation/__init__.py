"""Evaluators of the published data sets: detectron2's, faster and with current package versions."""

from brloss_d2.evaluation.cityscapes import CityscapesEvaluator
from brloss_d2.evaluation.coco import COCOEvaluator
from brloss_d2.evaluation.lvis import LVISEvaluator

__all__ = ["COCOEvaluator", "CityscapesEvaluator", "LVISEvaluator"]
