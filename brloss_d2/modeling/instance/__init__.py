"""One-stage instance segmentation: YOLACT and its parts."""

from brloss_d2.modeling.instance.coefficient_head import CoefficientHead, CoefficientOutputs
from brloss_d2.modeling.instance.prototypes import PrototypeNet
from brloss_d2.modeling.instance.semantic_head import SemanticHead
from brloss_d2.modeling.instance.yolact import YOLACT

__all__ = ["YOLACT", "CoefficientHead", "CoefficientOutputs", "PrototypeNet", "SemanticHead"]
