"""Single-stage instance segmentation."""

from brloss_d2.modeling.instance.grid_assigner import GridAssigner, GridTargets
from brloss_d2.modeling.instance.grid_head import GridHead, GridOutputs, MaskFeatureHead
from brloss_d2.modeling.instance.grid_postprocessing import GridPostprocessor
from brloss_d2.modeling.instance.matrix_nms import MatrixNMS, points_nms
from brloss_d2.modeling.instance.solov2 import SOLOv2

__all__ = [
    "GridAssigner",
    "GridHead",
    "GridOutputs",
    "GridPostprocessor",
    "GridTargets",
    "MaskFeatureHead",
    "MatrixNMS",
    "SOLOv2",
    "points_nms",
]
