"""One-stage detectors of the configs, reduced to the sizes of the golden files."""

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
    """Reduce the model of a leaf to a slim ResNet-18, 32 channels and 5 classes.

    Args:
        leaf: name of the file in configs/coco, without suffix.
        tower: number of channels of the towers.

    Returns:
        Config node of the model.
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
    """Build a detector in training mode, with the weights of a golden file if one is given."""
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
    """Return feature maps, outputs of the head and losses of a normalized batch."""
    features = list(model.backbone(batch).values())
    outputs = model.head(features)
    images = ImageList(batch, [x.image_size for x in objects])
    return features, outputs, model.forward_training(images, features, outputs, objects)


@torch.no_grad()
def detect(model: OneStageDetector, batch: Tensor, sizes: list[tuple[int, int]]) -> list[Instances]:
    """Detect objects in a normalized batch of images with the given (height, width)."""
    features = list(model.backbone(batch).values())
    return model.forward_inference(ImageList(batch, sizes), features, model.head(features))


def difference_of_detections(
    found: Instances, boxes: Tensor, scores: Tensor, classes: Tensor
) -> tuple[float, float]:
    """Compare detections with stored ones as sets, since nearly equal scores may swap places.

    Each detection is compared with the nearest stored one of its class, and vice versa.

    Args:
        found: detections.
        boxes: (D, 4) stored boxes, XYXY pixels.
        scores: (D,) stored scores.
        classes: (D,) stored classes.

    Returns:
        Largest difference of coordinates in pixels, and of scores.
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
