"""SOLOv2 of the configs, reduced to the sizes of the golden files."""

from pathlib import Path

from detectron2.config import LazyConfig, instantiate

from brloss_d2.model_zoo import get_criterion
from brloss_d2.modeling import SOLOv2
from tests.helpers.golden_models import Golden, load_weights, small_resnet

MODEL = Path(__file__).parents[2] / "configs/common/models/solov2_light_fpn.py"
CLASSES = 5
GRIDS = [12, 10, 8, 6, 4]


def build_solov2(loss: str, golden: Golden | None = None, *, num_classes: int = CLASSES) -> SOLOv2:
    """Build the small detector in training mode, with the weights of a file if one is given.

    Args:
        loss: name of its criteria; "focal" is laid out as the published baseline.
        golden: file with weights.
        num_classes: number of classes.
    """
    cfg = LazyConfig.load(str(MODEL)).model
    cfg.backbone.bottom_up = small_resnet()
    cfg.backbone.out_channels = 32
    cfg.head.update(kernel_dim=32, conv_dims=[64, 64], grid_sizes=GRIDS)
    cfg.mask_head.conv_dim = 64
    cfg.assigner.scale_ranges = [[1, 28], [14, 56], [28, 112], [56, 224], [112, 448]]
    cfg.num_classes = num_classes
    cfg.criterion = get_criterion(loss, "solov2")
    cfg.mask_criterion = get_criterion(loss, "solov2_mask")
    if loss == "focal":
        cfg.assigner.first_wins = False
        cfg.postprocessor.score_thresh = 0.1
    model = instantiate(cfg).train()
    if golden is not None:
        load_weights(model, golden, "solov2")
    return model
