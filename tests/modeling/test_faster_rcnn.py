"""Every criterion trains Faster R-CNN on full, half-empty and empty batches."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from brloss_d2.errors import InputError
from brloss_d2.modeling import CriterionROIHeads, CriterionRPN, add_brloss_config
from tests.helpers.criteria import RCNN_CRITERIA, build_criterion
from tests.helpers.random_inputs import random_inputs
from tests.helpers.yaml_configs import small_rcnn

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 3
SIZE = (96, 128)
RANKING_KEYS = {"rank", "box_reg"}


def inputs(*objects: int, **options) -> list[dict]:
    return random_inputs(*objects, num_classes=CLASSES, **options)


def slim(name: str):
    """The slim detector with the criterion of that name, and the sampling it goes with."""
    sampled = name == "ce"
    base = CONFIGS / "quick" / f"faster_rcnn_R_18_FPN_{'ce' if sampled else 'brs'}_300it.py"
    cfg = LazyConfig.load(str(base)).model
    cfg.roi_heads.num_classes = CLASSES
    del cfg.proposal_generator.criterion, cfg.roi_heads.box_predictor.criterion
    torch.manual_seed(0)
    model = instantiate_with(cfg, name)
    return model.train()


def instantiate_with(cfg, name: str):
    cfg.proposal_generator.criterion = build_criterion(name, "rpn", pools_per_epoch=2)
    cfg.roi_heads.box_predictor.criterion = build_criterion(name, "roi", pools_per_epoch=2)
    return instantiate(cfg)


@pytest.mark.parametrize("name", RCNN_CRITERIA)
def test_one_step_of_any_batch(name):
    model = slim(name)
    keys = set()
    for objects in ((3, 2), (0, 2), (0, 0)):
        model.zero_grad()
        with EventStorage():
            losses = model(inputs(*objects))
        sum(losses.values()).backward()
        keys.add(frozenset(losses))
        assert all(v.shape == () and v.isfinite() for v in losses.values())
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert len(keys) == 1  # the same names whatever the batch
    assert len(losses) == len({n for n in losses if n.startswith("loss_")})


def test_names_of_the_losses():
    with EventStorage():
        losses = slim("brs")(inputs(2))
    assert set(losses) == {
        *("loss_rpn_rank", "loss_rpn_sort", "loss_rpn_box_reg"),
        *("loss_rank", "loss_sort", "loss_box_reg"),
    }


def test_self_balancing_shows_in_the_values():
    with EventStorage():
        losses = {k: v.item() for k, v in slim("rs")(inputs(3, 2)).items()}
    for prefix in ("loss_", "loss_rpn_"):
        expected = losses[f"{prefix}rank"] + losses[f"{prefix}sort"]
        torch.testing.assert_close(losses[f"{prefix}box_reg"], expected, rtol=1e-4, atol=0)


def test_unbalanced_values_are_logged():
    with EventStorage() as storage:
        slim("rs")(inputs(3, 2))
        latest = storage.latest()
    assert latest["roi_head/box_reg_unbalanced"][0] > 0
    assert latest["rpn/num_positives"][0] > 0


def test_no_sampling_under_a_ranking_loss():
    model = slim("rs")
    heads, rpn = model.roi_heads, model.proposal_generator
    seen = {}

    def spy(name, criterion):
        forward = criterion.forward

        def wrapped(matched):
            seen[name] = matched
            return forward(matched)

        criterion.forward = wrapped

    spy("rpn", rpn.criterion)
    spy("roi", heads.box_predictor.criterion)
    with EventStorage():
        model(inputs(3, 2))
    anchors = 3 * (24 * 32 + 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2)
    assert len(seen["rpn"].labels) == 2 * anchors
    positives = (seen["rpn"].labels == 0).sum()
    ignored = (seen["rpn"].labels < 0).sum()
    assert (seen["rpn"].labels == 1).sum() == 2 * anchors - positives - ignored > anchors
    # All proposals and the added ground truth, foreground first in each image.
    assert len(seen["roi"].labels) > 200


def test_smaller_image_of_a_batch_ignores_its_padding():
    rpn = slim("rs").proposal_generator
    anchors = rpn.anchor_generator([torch.zeros(1, 1, 24, 32)])
    gt = [Instances(size, gt_boxes=Boxes(torch.zeros(0, 4))) for size in ((96, 128), (40, 60))]
    labels, _ = rpn.label_and_sample_anchors(anchors, gt)
    assert (labels[0] == 0).all()
    kept = (labels[1] == 0).view(24, 32, 3)
    assert kept[:16, :16].all()  # 40 x 60 pixels count as 64 x 64: 16 cells of 4
    assert not kept[16:].any()
    assert not kept[:, 16:].any()


def test_border_anchors_are_left_out_before_matching():
    rpn = slim("rs").proposal_generator
    anchors = rpn.anchor_generator([torch.zeros(1, 1, 24, 32)])
    corner = Instances(SIZE, gt_boxes=Boxes(torch.tensor([[0.0, 0, 8, 16]])))

    def positives(threshold: int) -> torch.Tensor:
        rpn.anchor_boundary_thresh = threshold
        labels, _ = rpn.label_and_sample_anchors(anchors, [corner])
        return anchors[0].tensor[labels[0] == 1]

    # The best anchors are a tall one that crosses the border and a square one inside.
    assert (positives(-1) < 0).any()
    assert len(positives(0))
    assert (positives(0) >= 0).all()


def test_prior_probability():
    rpn = slim("alrp").proposal_generator
    assert rpn.rpn_head.objectness_logits.bias.abs().max() == 0
    cfg = LazyConfig.load(str(CONFIGS / "quick/faster_rcnn_R_18_FPN_brs_300it.py")).model
    cfg.proposal_generator.prior_prob = 0.01
    bias = instantiate(cfg.proposal_generator).rpn_head.objectness_logits.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))


def test_nan_names_the_rpn_and_its_losses():
    model = slim("rs")
    torch.nn.init.constant_(model.proposal_generator.rpn_head.conv.weight, float("nan"))
    with EventStorage(), pytest.raises(FloatingPointError, match="loss_rpn_"):
        model(inputs(2))


def test_inference():
    model = slim("rs").eval()
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    with torch.no_grad():
        (output,) = model(inputs(2)[:1])
    instances = output["instances"]
    assert 0 < len(instances) <= 100
    assert ((instances.scores > 0) & (instances.scores < 1)).all()
    assert set(instances.pred_classes.tolist()) <= set(range(CLASSES))


@pytest.mark.parametrize("name", RCNN_CRITERIA)
def test_yaml_users(name):
    cfg = small_rcnn(CLASSES)
    add_brloss_config(cfg, name)
    model = build_model(cfg).train()
    assert isinstance(model.proposal_generator, CriterionRPN)
    assert isinstance(model.roi_heads, CriterionROIHeads)
    assert repr(model.proposal_generator.criterion) == repr(build_criterion(name, "rpn"))
    sampled = None if name != "ce" else 512
    assert model.roi_heads.batch_size_per_image == sampled
    with EventStorage():
        losses = model(inputs(2, 1))
    assert all(v.isfinite() for v in losses.values())


def test_yaml_name_is_checked():
    with pytest.raises(InputError, match="unknown criterion 'giou'"):
        add_brloss_config(get_cfg(), "giou")
