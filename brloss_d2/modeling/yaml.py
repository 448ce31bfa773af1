"""Options for detectron2's YAML (yacs) configurations."""

from detectron2.config import CfgNode as CN

from brloss_d2.criteria import CRITERION_NAMES, ONE_STAGE_CRITERION_NAMES


def add_brloss_config(cfg: CN, criterion: str = "brs") -> None:
    """Make a yacs configuration train Faster or Mask R-CNN with a criterion of this package.

    Names our RPN, RoI heads and mask head and, for the ranking losses, sets the published score
    threshold and box weights. Everything can be overridden afterwards. `MODEL.BRLOSS.CRITERION` may
    also be changed later to any of `CRITERION_NAMES`: the heads then take the matching losses and
    sampling, while thresholds and weights stay as they are.

    For Cascade R-CNN set `MODEL.ROI_HEADS.NAME` to "CriterionCascadeROIHeads" and, as published
    with the ranking losses, `MODEL.RPN.BOUNDARY_THRESH` to 0.

    For a one-stage detector set `MODEL.META_ARCHITECTURE` to "OneStageDetector",
    `MODEL.BRLOSS.ARCHITECTURE` to "atss", "paa", "retinanet" or "fovea", and `MODEL.BACKBONE.NAME`
    to "build_resnet_fpn_p6p7_backbone". Classes and thresholds are those of `MODEL.RETINANET`.

    Args:
        cfg: a configuration made by `detectron2.config.get_cfg`.
        criterion: one of `CRITERION_NAMES`: "ce", "ap", "bap", "rs", "brs", "alrp"; for one-stage
            detectors one of `ONE_STAGE_CRITERION_NAMES`, which adds "focal", "qfl", "vfl", "mal".

    Raises:
        ValueError: for another name.
    """
    known = tuple(dict.fromkeys((*CRITERION_NAMES, *ONE_STAGE_CRITERION_NAMES)))
    if criterion not in known:
        raise ValueError(f"unknown criterion {criterion!r}, expected one of {known}")
    cfg.MODEL.BRLOSS = CN()
    cfg.MODEL.BRLOSS.CRITERION = criterion
    # Of a one-stage detector.
    cfg.MODEL.BRLOSS.ARCHITECTURE = "atss"
    cfg.MODEL.BRLOSS.RPN_LOSS_WEIGHT = 0.2
    cfg.MODEL.BRLOSS.RPN_MIN_LOW_QUALITY_IOU = 0.3
    # Training iterations in an epoch, for the self-balancing of aLRP Loss (COCO at 16 images).
    cfg.MODEL.BRLOSS.EPOCH_STEPS = 7330
    # Mask R-CNN: an object takes its best proposal from this IoU on.
    cfg.MODEL.BRLOSS.MASK_MIN_LOW_QUALITY_IOU = 0.5
    cfg.MODEL.BRLOSS.CASCADE_LOSS_WEIGHTS = (1.0, 0.5, 0.25) if criterion == "ce" else (1.0,) * 3
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "CriterionRPN"
    cfg.MODEL.ROI_HEADS.NAME = "CriterionROIHeads"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "CriterionMaskHead"
    if criterion != "ce":
        cfg.MODEL.RPN.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
        cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = ((10.0, 10.0, 5.0, 5.0),) * 3
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05 if criterion == "alrp" else 0.40
