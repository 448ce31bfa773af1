"""Another loss for every detector of the zoo."""

from copy import deepcopy

import pytest
from detectron2.config import instantiate
from omegaconf import OmegaConf

from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file, get_config, list_configs, set_loss
from brloss_d2.model_zoo.losses import config_with_loss, losses_of
from tests.helpers.configs import build_without_weights
from tests.helpers.criteria import build_criterion

SLIM = [e for e in list_configs(data="custom") if not e.name.startswith("co_detr/")]


@pytest.mark.parametrize("name", [e.name for e in SLIM])
def test_a_slim_detector_trains_with_every_loss(name: str) -> None:
    (entry,) = list_configs(name=name)
    cfg = get_config(name)
    for loss in losses_of(cfg.model):
        model = deepcopy(cfg.model)
        set_loss(model, loss)
        if "roi_heads" in model:
            assert (model.roi_heads.batch_size_per_image is None) == (loss != "ce")
            assert model.roi_heads.box_predictor.test_score_thresh == 0.05
            found = instantiate(model.roi_heads.box_predictor.criterion)
            assert repr(found) == repr(build_criterion(loss, "roi"))
        else:
            built = build_without_weights(model)
            epoch = 3665 if entry.detector == "yolact" else 7330  # in pools of 8 images or 4
            expected = build_criterion(loss, entry.detector, pools_per_epoch=epoch)
            assert repr(built.criterion) == repr(expected)
            if "mask_criterion" in model:
                masks = build_criterion(loss, f"{entry.detector}_mask")
                assert repr(built.mask_criterion) == repr(masks)


@pytest.mark.parametrize("detector", ["cascade_rcnn", "mask_rcnn"])
def test_the_way_to_cross_entropy_and_back(detector: str) -> None:
    ranking, sampled = (
        get_config(f"coco/{detector}_R_50_FPN_{loss}_1x").model for loss in ("rs", "ce")
    )
    model = deepcopy(ranking)
    set_loss(model, "ce")
    assert OmegaConf.to_yaml(model) == OmegaConf.to_yaml(sampled)
    set_loss(model, "rs")
    heads = ranking.roi_heads
    for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
        # The first is the default, the second keeps more detections.
        predictor.update(loss_weight=1.0, test_score_thresh=0.05)
    assert OmegaConf.to_container(model) == OmegaConf.to_container(ranking)


def test_pools_keep_their_size() -> None:
    model = get_config("coco/fovea_R_50_FPN_ap_500s_100e").model
    set_loss(model, "rs")
    assert model.criterion.images_per_pool == 8
    model = get_config("coco/retinanet_R_50_FPN_alrp_500s_100e").model  # assigns as ATSS
    set_loss(model, "ap")
    assert "SmoothL1Loss" in str(model.criterion.box_loss._target_)


def test_pools_of_classes_and_masks_keep_their_size() -> None:
    model = get_config("coco/solov2_R_101_FPN_rs_3x").model
    set_loss(model, "bap")
    assert model.criterion.images_per_pool == model.mask_criterion.images_per_pool == 4


def test_an_epoch_of_pools_keeps_its_images() -> None:
    model = get_config("coco/retinanet_R_50_FPN_ap_iou_500s_100e").model
    set_loss(model, "alrp")  # without its own config: the usual pools have half as many images
    assert model.criterion.images_per_pool == 8
    assert model.criterion.balancer.pools_per_epoch == 3665


def test_dr_loss_starts_from_scores_of_one_half() -> None:
    model = get_config("coco/atss_R_50_FPN_rs_1x").model
    for loss, prior in (("dr", 0.5), ("focal", 0.01)):
        set_loss(model, loss)
        assert model.head.prior_prob == prior
    model = get_config("coco/retinanet_R_50_FPN_rs_1x").model
    set_loss(model, "dr")
    assert model.box_transform.weights == [10, 10, 5, 5]
    assert instantiate(model.criterion.cls_loss).images_per_pool == 1  # not that of RS


def test_siblings() -> None:
    brs = config_file("co_detr/co_deformable_detr_R_50_brs_1x")
    focal = config_file("co_detr/co_deformable_detr_R_50_focal_1x")
    assert config_with_loss(brs, "focal") == focal
    rs = config_file("co_detr/co_deformable_detr_R_50_rs_1x")
    assert config_with_loss(brs, "rs") == config_with_loss(focal, "rs") == rs
    assert config_with_loss(brs, "qfl") == config_with_loss("/tmp/other.py", "focal") == ""
    iou, atss = (config_file(f"coco/retinanet_R_50_FPN_alrp{x}_500s_100e") for x in ("_iou", ""))
    assert config_with_loss(iou, "ap") == config_file("coco/retinanet_R_50_FPN_ap_iou_500s_100e")
    assert config_with_loss(atss, "ap") == ""


def test_a_model_of_others() -> None:
    with pytest.raises(InputError, match="in its config only"):
        set_loss(OmegaConf.create({"_target_": "torch.nn.Identity"}), "rs")
