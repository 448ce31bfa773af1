"""The one-stage detectors of the configs at the size of the golden files."""

from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import ImageList, Instances
from omegaconf import DictConfig
from torch import Tensor

from brloss_d2.checkpoint import from_mmdetection
from brloss_d2.modeling import OneStageDetector
from tests.helpers.golden_models import Golden, small_resnet

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 5


def small_config(leaf: str, *, tower: int) -> DictConfig:
    """The model of a leaf with a slim ResNet-18, 32 channels and 5 classes.

    Args:
        leaf: name of the file below configs/coco, without its suffix.
        tower: channels of the towers.
    """
    cfg = LazyConfig.load(str(CONFIGS / f"coco/{leaf}.py")).model
    cfg.backbone.bottom_up = small_resnet()
    cfg.backbone.bottom_up.out_features = ["res3", "res4", "res5"]
    cfg.backbone.out_channels = 32
    if cfg.backbone.top_block.in_feature == "res5":
        cfg.backbone.top_block.in_channels = 64
    cfg.head.conv_dims = [tower] * 4
    cfg.num_classes = CLASSES
    return cfg


def build(
    cfg: DictConfig, golden: Golden | None = None, architecture: str = ""
) -> OneStageDetector:
    """Instantiate in training mode, with the weights of a golden file if there is one."""
    model = instantiate(cfg).train()
    if golden is not None:
        published = {k.removeprefix("param/"): golden.tensor(k) for k in golden.keys("param/")}
        state = from_mmdetection(published, architecture)
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected
        assert all("num_batches_tracked" in n or "criterion" in n for n in missing), missing
    return model


def run(
    model: OneStageDetector, batch: Tensor, objects: list[Instances]
) -> tuple[list[Tensor], list[list[Tensor]], dict[str, Tensor]]:
    """Feature maps, outputs of the head and losses of a batch that is normalized already."""
    features = list(model.backbone(batch).values())
    outputs = model.head(features)
    images = ImageList(batch, [x.image_size for x in objects])
    return features, outputs, model.forward_training(images, features, outputs, objects)


@torch.no_grad()
def detect(model: OneStageDetector, batch: Tensor, sizes: list[tuple[int, int]]) -> list[Instances]:
    """Detections of a batch that is normalized already."""
    features = list(model.backbone(batch).values())
    return model.forward_inference(ImageList(batch, sizes), features, model.head(features))


def difference_of_detections(
    found: Instances, boxes: Tensor, scores: Tensor, classes: Tensor
) -> tuple[float, float]:
    """Largest difference in pixels and in score, as sets: scores that nearly tie may swap.

    Each detection is compared with the nearest stored one of its class and the other way round.
    """
    assert len(found) == len(boxes)
    ours = _rows(found.pred_boxes.tensor, found.scores, found.pred_classes)
    theirs = _rows(boxes, scores, classes)
    apart = torch.cdist(ours, theirs, p=torch.inf)
    pairs = torch.cat([theirs[apart.argmin(1)] - ours, ours[apart.argmin(0)] - theirs]).abs()
    return pairs[:, :4].max().item(), pairs[:, 4].max().item() / _SCORE_SCALE


# Scores weigh like pixels, classes lie well apart.
_SCORE_SCALE = 1e3


def _rows(boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
    return torch.cat([boxes, _SCORE_SCALE * scores[:, None], 1e5 * classes[:, None]], 1)
