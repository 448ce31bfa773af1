"""Single-stage instance segmentation: YOLACT and SOLOv2."""

from brloss_d2.modeling.instance.coefficient_head import CoefficientHead, CoefficientOutputs
from brloss_d2.modeling.instance.grid_assigner import GridAssigner, GridTargets
from brloss_d2.modeling.instance.grid_head import GridHead, GridOutputs, MaskFeatureHead
from brloss_d2.modeling.instance.grid_postprocessing import GridPostprocessor
from brloss_d2.modeling.instance.matrix_nms import MatrixNMS, points_nms
from brloss_d2.modeling.instance.prototypes import PrototypeNet
from brloss_d2.modeling.instance.semantic_head import SemanticHead
from brloss_d2.modeling.instance.solov2 import SOLOv2
from brloss_d2.modeling.instance.yolact import YOLACT

__all__ = [
    "YOLACT",
    "CoefficientHead",
    "CoefficientOutputs",
    "GridAssigner",
    "GridHead",
    "GridOutputs",
    "GridPostprocessor",
    "GridTargets",
    "MaskFeatureHead",
    "MatrixNMS",
    "PrototypeNet",
    "SOLOv2",
    "SemanticHead",
    "points_nms",
]
