"""Configs of one detector with several losses."""

from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from brloss_d2.engine import load_config
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file, list_configs, list_criteria, set_loss
from brloss_d2.model_zoo.losses import losses_of as losses_of_model
from comparison.notes import plain, walk

DETECTORS = (
    *("atss", "paa", "retinanet", "fovea", "faster_rcnn", "co_deformable_detr"),
    *("mask_rcnn", "yolact", "solov2"),
)
ONE_STAGE_LOSSES = list_criteria("atss")
RCNN_LOSSES = list_criteria("roi")
_RCNN_SCORE_THRESH = 0.05


def slim_recipe(detector: str) -> Path:
    """Return the config file of a detector that trains from scratch in minutes."""
    options = dict(data="custom", backbone="R_18", loss="brs", schedule="300it")
    (entry,) = list_configs(detector=detector, **options)
    return Path(config_file(entry.name))


def with_loss(path: Path, loss: str, train_images: int) -> DictConfig:
    """Load a config and replace the loss.

    Anchors, assignment, network, selection of detections, optimizer and schedule are kept. The
    seed alone determines the data, no matter how many random numbers the model draws.

    Args:
        path: path of a config: of an R-CNN with a ranking loss, a one-stage detector or Co-DETR.
        loss: one of `losses_of` the config.
        train_images: number of training images.

    Returns:
        The config with the loss.

    Raises:
        InputError: the file is not a config, or the detector cannot be trained with the loss.
    """
    cfg, _ = load_config(str(path))
    known = losses_of(cfg)
    if loss not in known:
        raise InputError(
            f"{path.name} cannot be trained with {loss!r}: expected some of {', '.join(known)}."
        )
    set_loss(cfg.model, loss)
    heads = cfg.model.get("roi_heads", {})
    for predictor in heads.get("box_predictors") or [heads.get("box_predictor")]:
        if predictor is not None:
            predictor.test_score_thresh = _RCNN_SCORE_THRESH
    for key, _ in walk(plain(cfg)):
        if key.endswith(".balancer.pools_per_epoch"):
            criterion = OmegaConf.select(cfg, key.removesuffix(".balancer.pools_per_epoch"))
            criterion.balancer.pools_per_epoch = max(1, train_images // criterion.images_per_pool)
    # `manual_seed` returns the generator, from which the loader seeds its workers.
    cfg.dataloader.train.generator = L(torch.random.manual_seed)(seed="${train.seed}")
    return cfg


def losses_of(cfg: DictConfig) -> Sequence[str]:
    """Return the losses with which the detector of a config can be trained.

    Raises:
        InputError: there are none.
    """
    known = losses_of_model(cfg.model)
    if not known:
        raise InputError("The config is of a detector whose loss can be changed in its file only.")
    sampled = cfg.model.get("roi_heads", {}).get("batch_size_per_image") is not None
    if known == RCNN_LOSSES and sampled:
        raise InputError(
            "This R-CNN is laid out for cross-entropy: name the config of the same with a ranking "
            "loss, in which no proposals are sampled away."
        )
    return known
