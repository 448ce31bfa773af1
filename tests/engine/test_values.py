"""Wrong values of right keys are refused in one sentence before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from brloss_d2.engine import load_config
from brloss_d2.engine.config.values import check_parts
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file

SLIM = "quick/faster_rcnn_R_18_FPN_brs_300it"
RPN = "model.proposal_generator"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        # of another kind
        ("optimizer.lr=abc", "optimizer.lr is 'abc': expected a number"),
        ("optimizer.lr=True", "expected a number"),
        (f"{RPN}.criterion.cls_loss.delta=abc", "expected a number"),
        ("dataloader.train.total_batch_size=abc", "expected a number"),
        ("model.roi_heads.box_head.conv_dims=abc", "expected a list"),
        ("dataloader.train.mapper=3", "expected a group of keys"),
        ("dataloader.train.mapper.is_train=1", "expected True or False"),
        ("model.input_format=1", "expected text"),
        ("optimizer.maximize={}", "expected True or False"),  # whose default is no key
        ("optimizer.params=[]", "Cannot apply 'optimizer.params=..'"),
        ("optimizer._target_=3", "name of a class or function"),
        ("model.roi_heads.box_predictor=${no.such}", "no.such"),
        # out of range
        ("optimizer.lr=-1", "above 0"),
        ("optimizer.lr=null", "optimizer.lr is None: expected a number above 0"),
        ("optimizer.lr=[1]", "expected a number above 0"),
        ("optimizer.lr=nan", "finite"),
        ("optimizer.lr=inf", "finite"),
        ("optimizer.weight_decay=-1", "at least 0"),
        (f"{RPN}.criterion.images_per_pool=0", "at least 1"),
        (f"{RPN}.nms_thresh=1.5", "from 0 to 1"),
        (f"{RPN}.post_nms_topk=[100, 0]", "at least 1"),
        ("dataloader.train.num_workers=-1", "at least 0"),
        ("dataloader.train.total_batch_size=2.5", "an integer"),
        ("dataloader.train.mapper.augmentations.0.short_edge_length=0", "at least 1"),
        ("model.pixel_std=[57, 0, 57]", "above 0"),
        ("model.backbone.bottom_up.freeze_at=9", "an integer from 0 to 5"),
        ("lr_multiplier.warmup_length=5", "from 0 to 1"),
        ("dataloader.test.mapper.image_format=BGR", "model.input_format RGB"),
        # names of nothing
        ("optimizer._target_=torch.optim.SGDD", r"Did you mean torch\.optim\.SGD\?"),
        ("model.roi_heads._target_=no.such.Thing", "no such class or function"),
        # parts that cannot be built, or do not fit
        (
            f"{RPN}.criterion.cls_loss.delta=-1",
            r"cls_loss \(.*\) cannot be built: .*delta",
        ),
        (
            "model.roi_heads.proposal_matcher.thresholds=0.6",
            r"matcher \(.* cannot be built",
        ),
        ("optimizer.betas=3", r"optimizer \(AdamW\) cannot be built.*optimizer\.betas=3"),
        ("optimizer.params.overrides=3", r"optimizer\.params .*cannot be built"),
        ("optimizer.params.overrides={backbone: {lr: 0.1}}", "set lr_factors={backbone: FACTOR}"),
        ("optimizer.params.lr_factors={bakcbone: 0.1}", "Did you mean backbone"),
        ("optimizer.params.lr_factors={bakcbone: 0.1}", "cannot be built: (?!InputError)"),
        ("dataloader.train.dataset=null", "dataloader.train.dataset is missing"),
        ("+dataloader.train.extra=0", "dataloader.train cannot be built.*extra"),
        (f"{RPN}.head.in_channels=7", "fails on a test image.*channels"),
        ("model.roi_heads.box_in_features=[p9]", "fails on a test image.*p9"),
    ],
)
def test_a_wrong_value_is_one_sentence(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as error:
        cfg, _ = load_config(config_file(SLIM), [override])
        check_parts(cfg, [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=3",
        f"{RPN}.criterion.images_per_pool=null",
        f"{RPN}.nms_thresh=1",
        f"{RPN}.batch_size_per_image=64",
        "dataloader.train.mapper.augmentations.0.short_edge_length=64",
        "model.roi_heads.box_head.fc_dims=[64, 256]",
        "optimizer.params.overrides={bias: {lr: 0.1}}",
        "optimizer.params.lr_factors={backbone: 0.1}",
        "lr_multiplier.warmup_length=0.0",
    ],
)
def test_a_right_value_is_not_refused(override: str) -> None:
    cfg, _ = load_config(config_file(SLIM), [override])
    check_parts(cfg, [override])
    assert "model" not in cfg.optimizer.params


@pytest.mark.parametrize(
    "line",
    ["model.dropout = lambda: 0", "def f(): ...\nmodel.f = f", "class A: ...\nmodel.a = [A]"],
)
def test_code_of_a_config_file_is_refused(config: Path, line: str) -> None:
    config.write_text(f"{config.read_text()}\n{line}\n")
    with pytest.raises(InputError, match="defined in a config file"):
        load_config(str(config))


def test_nothing_is_written(train_net: Callable[..., Path], config: Path) -> None:
    with pytest.raises(SystemExit):
        train_net("optimizer.momentum=-1")
    assert not (config.parent / "out").exists()
