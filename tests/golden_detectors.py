"""The small detectors of the golden files, made of our configs, and their weights."""

from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from golden_models import load
from omegaconf import DictConfig
from torch import Tensor

from brloss_d2.modeling import FixedStatsBatchNorm2d

COCO = Path(__file__).parents[1] / "configs/coco"


def weights(name: str) -> dict[str, Tensor]:
    """The published state dict of a golden file."""
    golden = load(name)
    return {key.removeprefix("param/"): golden.tensor(key) for key in golden.keys("param/")}


def small_faster_rcnn(loss: str) -> DictConfig:
    """The config of Faster R-CNN with the widths and classes of the golden files."""
    cfg = LazyConfig.load(str(COCO / f"faster_rcnn_R_50_FPN_{loss}_1x.py"))
    model = cfg.model
    model.backbone.bottom_up = _resnet18()
    model.backbone.out_channels = model.proposal_generator.head.in_channels = 32
    model.roi_heads.num_classes = 5
    model.roi_heads.box_head.input_shape.channels = 32
    model.roi_heads.box_head.fc_dims = [64, 64]
    model.roi_heads.box_predictor.input_shape.channels = 64
    return cfg


def _resnet18() -> DictConfig:
    widths = [8, 8, 16, 32, 64]
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=8, norm=FixedStatsBatchNorm2d),
        stages=[
            L(ResNet.make_stage)(
                block_class=BasicBlock,
                num_blocks=2,
                stride_per_block=[1 if i == 0 else 2, 1],
                in_channels=widths[i],
                out_channels=widths[i + 1],
                norm=FixedStatsBatchNorm2d,
            )
            for i in range(4)
        ],
        out_features=["res2", "res3", "res4", "res5"],
    )
