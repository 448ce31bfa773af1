"""The 100 epochs of the aLRP Loss repository: Faster R-CNN, and what all of its rows share."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from brloss_d2.model_zoo import get_config, list_configs
from tests.helpers.golden_rcnn import CLASSES, shrink
from tests.helpers.random_inputs import random_inputs
from tests.helpers.small_one_stage import small_config

ROWS = [entry for entry in list_configs() if entry.schedule.endswith("00s_100e")]
FASTER = {"ce": 0.04, "ce_giou": 0.04, "alrp": 0.012}


def faster_rcnn(name: str):
    return get_config(f"coco/faster_rcnn_R_50_FPN_{name}_500s_100e")


def test_there_are_rows():
    detectors = [entry.detector for entry in ROWS]
    assert {x: detectors.count(x) for x in detectors} == {
        "faster_rcnn": 3,
        "fovea": 3,
        "retinanet": 8,
    }


@pytest.mark.parametrize("name", FASTER)
def test_schedule_and_data_of_faster_rcnn(name):
    cfg = faster_rcnn(name)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (FASTER[name], 1e-4)
    assert (cfg.train.max_iter, cfg.train.clip_grad_norm) == (366500, 0)
    schedule = instantiate(cfg.lr_multiplier)
    iterations = (0, 500, 274874, 274876, 348174, 348176)
    rates = [round(schedule(i / 366500), 4) for i in iterations]
    assert rates == [0.001, 1.0, 1.0, 0.1, 0.1, 0.01]
    assert cfg.dataloader == get_config("coco/retinanet_R_50_FPN_alrp_500s_100e").dataloader
    assert cfg.model.roi_heads.box_predictor.test_score_thresh == 0.05


def test_regions_of_faster_rcnn():
    alrp, sampled = faster_rcnn("alrp").model, faster_rcnn("ce_giou").model
    rpn, heads = alrp.proposal_generator, alrp.roi_heads
    assert (rpn.batch_size_per_image, heads.batch_size_per_image) == (None, None)
    assert not instantiate(heads).proposal_append_gt
    rpn = instantiate(rpn)
    scores = rpn.rpn_head.objectness_logits.bias.sigmoid()
    torch.testing.assert_close(scores, torch.full((3,), 0.01))
    assert (rpn.loss_weight, rpn.box2box_transform.weights) == (0.2, [10, 10, 5, 5])
    rpn, heads = instantiate(sampled.proposal_generator), instantiate(sampled.roi_heads)
    assert (rpn.batch_size_per_image, rpn.positive_fraction, rpn.loss_weight) == (256, 0.5, 1)
    assert (heads.batch_size_per_image, heads.positive_fraction) == (512, 0.25)
    assert heads.proposal_append_gt and rpn.rpn_head.objectness_logits.bias.eq(0).all()
    assert rpn.box2box_transform.weights == [1, 1, 1, 1]
    only_giou, both_l1 = sampled, faster_rcnn("ce").model
    for model in (only_giou, both_l1):
        del model.roi_heads.box_predictor.criterion
    assert only_giou == both_l1


def test_network_of_faster_rcnn_is_that_of_twelve_epochs():
    with torch.device("meta"):
        shapes = [
            {name: x.shape for name, x in instantiate(cfg.model).named_parameters()}
            for cfg in (faster_rcnn("alrp"), get_config("coco/faster_rcnn_R_50_FPN_alrp_1x"))
        ]
    assert shapes[0] == shapes[1]


def test_deformable_resnext():
    counts = []
    for name in ("X_101_64x4d", "X_101_64x4d_DCN"):
        cfg = get_config(f"coco/retinanet_{name}_FPN_alrp_800s_100e")
        with torch.device("meta"):
            network = instantiate(cfg.model.backbone.bottom_up)
        counts.append(sum(x.numel() for x in network.parameters()))
        assert cfg.train.init_checkpoint == "torchvision://resnext101_64x4d"
    assert counts[1] - counts[0] == 7_714_602


def slim(name: str):
    """The detector of a row with narrow layers; deformable stages keep a block each."""
    cfg = get_config(name).model
    if "roi_heads" in cfg:
        shrink(cfg)
        cfg.proposal_generator.post_nms_topk = (200, 200)
        return cfg
    network = cfg.backbone.bottom_up
    cfg = small_config(name.removeprefix("coco/"), tower=32)
    if "DCN" in name:
        network.stem.out_channels = 8
        for stage in network.stages:
            stage.update(num_blocks=1, stride_per_block=stage.stride_per_block[:1], num_groups=8)
            for key in ("in_channels", "out_channels", "bottleneck_channels"):
                stage[key] //= 8
        cfg.backbone.bottom_up = network
        cfg.backbone.top_block.in_channels = 256
    return cfg


# At 512 pixels, the slim forms of the other backbones are the same.
@pytest.mark.parametrize(
    "name", [x.name for x in ROWS if x.backbone == "R_50" or x.schedule == "800s_100e"]
)
def test_a_slim_form_trains_a_step(name):
    torch.manual_seed(0)
    model = instantiate(slim(name)).train()
    with EventStorage():
        losses = model(random_inputs(3, 0, num_classes=CLASSES))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    for parameter_name, x in model.named_parameters():
        if x.requires_grad:
            assert x.grad is not None and x.grad.isfinite().all(), parameter_name
