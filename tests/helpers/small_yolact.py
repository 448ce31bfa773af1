"""YOLACT of the configs, reduced to the sizes of the golden files."""

from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig

from brloss_d2.modeling import YOLACT
from tests.helpers.golden_models import small_resnet

COMMON = Path(__file__).parents[2] / "configs/common"
CLASSES = 5


def full_config(loss: str) -> DictConfig:
    """Return the model node with a loss, one of `list_criteria("yolact")`."""
    cfg = LazyConfig.load(str(COMMON / "models/yolact_fpn.py")).model
    (use_loss,) = LazyConfig.load(str(COMMON / "yolact_loss.py"), ("use_loss",))
    use_loss(cfg, loss)
    return cfg


def small_config(loss: str) -> DictConfig:
    """Reduce `full_config` to a slim ResNet-18, 32 channels, 8 prototypes and 5 classes."""
    cfg = full_config(loss)
    cfg.backbone.bottom_up = small_resnet(norm="BN")
    cfg.backbone.bottom_up.update(out_features=["res3", "res4", "res5"], freeze_at=0)
    cfg.backbone.out_channels = 32
    cfg.backbone.top_block.in_channels = 64
    cfg.head.update(conv_dims=[32], num_prototypes=8)
    cfg.prototype_net.conv_dims = [32] * 4
    cfg.num_classes = CLASSES
    return cfg


def build(loss: str) -> YOLACT:
    """Build a small YOLACT in training mode, always with the same weights."""
    torch.manual_seed(0)
    return instantiate(small_config(loss)).train()
