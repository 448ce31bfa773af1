"""Small detectors of the golden R-CNN files, built from our configs."""

from dataclasses import dataclass
from pathlib import Path

from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances

from brloss_d2.modeling import CriterionBoxPredictor
from brloss_d2.modeling.rcnn.mask_head import IndexedMasks
from tests.helpers.golden_models import Golden, ground_truth, load_weights, small_resnet

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 5
NAMES = [f"{arch}_{loss}" for arch in ("faster", "mask", "cascade") for loss in ("brs", "rs")]


def architecture(golden: Golden) -> str:
    return golden.name.split("_")[0] + "_rcnn"


def detector(golden: Golden):
    """Build the detector of a file from our leaf, with the sizes and weights of the file.

    The published RPN keeps boxes without area. Ours drops them by default, but not here.
    """
    loss = golden.name.split("_")[1]
    leaf = CONFIGS / f"coco/{architecture(golden)}_R_50_FPN_{loss}_1x.py"
    cfg = LazyConfig.load(str(leaf)).model
    shrink(cfg)
    cfg.proposal_generator.min_box_size = -1.0
    # The stored batch is normalized.
    cfg.pixel_mean, cfg.pixel_std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    model = instantiate(cfg)
    load_weights(model, golden, architecture(golden))
    return model


def small_faster_rcnn(loss: str):
    """Return the leaf of Faster R-CNN with a loss, with the sizes of the files."""
    cfg = LazyConfig.load(str(CONFIGS / f"coco/faster_rcnn_R_50_FPN_{loss}_1x.py"))
    shrink(cfg.model)
    return cfg


def shrink(cfg) -> None:
    """Give the config of an R-CNN the sizes of the files."""
    cfg.backbone.bottom_up = small_resnet()
    cfg.backbone.out_channels = cfg.proposal_generator.head.in_channels = 32
    heads = cfg.roi_heads
    heads.num_classes = CLASSES
    for box_head in heads.get("box_heads", [heads.get("box_head")]):
        box_head.input_shape.channels, box_head.fc_dims = 32, [64, 64]
    for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
        predictor.input_shape.channels = 64
    if "mask_head" in heads:
        heads.mask_head.input_shape.channels, heads.mask_head.conv_dims = 32, [32] * 5


@dataclass
class Stage:
    """One box head, and the names of its arrays in a file.

    Attributes:
        name: prefix of its arrays, "roi" or "roi_s0".
        losses: prefix of the published names of its losses.
        outputs: suffix of the names of its outputs on made-up regions.
        predictor: box predictor.
        box_head: box head.
        matcher: matcher of proposals and ground truth.
    """

    name: str
    losses: str
    outputs: str
    predictor: CriterionBoxPredictor
    box_head: object
    matcher: Matcher


def stages(golden: Golden, model) -> list[Stage]:
    heads = model.roi_heads
    if architecture(golden) != "cascade_rcnn":
        parts = heads.box_predictor, heads.box_head, heads.proposal_matcher
        return [Stage("roi", "loss_roi_", "", *parts)]
    return [
        Stage(f"roi_s{k}", f"s{k}.loss_roi_", f"_s{k}", *parts)
        for k, parts in enumerate(
            zip(heads.box_predictor, heads.box_head, heads.proposal_matchers, strict=True)
        )
    ]


def regions(golden: Golden, stage: Stage) -> list[Instances]:
    """Return the stored regions of a stage with their targets, per image."""
    rois, matched = golden.tensor(f"{stage.name}/rois"), golden.tensor(f"{stage.name}/matched_gt")
    found = []
    for i, gt in enumerate(ground_truth(golden)):
        rows = rois[:, 0] == i
        index = matched[rows].clamp(min=0)
        image = Instances(gt.image_size, proposal_boxes=Boxes(rois[rows, 1:]))
        image.gt_classes = golden.tensor(f"{stage.name}/labels")[rows]
        image.is_gt = golden.tensor(f"{stage.name}/is_gt")[rows].bool()
        image.gt_boxes = gt.gt_boxes[index]
        if gt.has("gt_masks"):
            image.gt_masks = IndexedMasks(gt.gt_masks, index)
        found.append(image)
    return found
