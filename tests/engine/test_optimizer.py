"""Schedules of the learning rate, and parts that are not trained."""

import re

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from brloss_d2.engine import StepCosineParamScheduler, load_config, params_by_name
from brloss_d2.engine.config.values import check_parts
from brloss_d2.engine.optimizer import freeze, log_rates
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file

# Of RS-YOLACT: epoch and learning rate as published, from 0.006.
PUBLISHED = {0: 0.006, 1: 0.00599511, 10: 0.00552376, 27: 0.00308567, 40: 0.00103542, 54: 4.89e-6}
EPOCHS, EPOCH = 55, 3665


def test_cosine_decay_in_steps():
    factor = StepCosineParamScheduler(num_steps=EPOCHS)
    for epoch, lr in PUBLISHED.items():
        first, last = epoch * EPOCH, (epoch + 1) * EPOCH - 1
        for iteration in (first, (first + last) // 2, last):
            assert 0.006 * factor(iteration / (EPOCHS * EPOCH)) == pytest.approx(
                lr, rel=0, abs=5e-9
            )
    rates = {factor(i / (EPOCHS * EPOCH)) for i in range(EPOCHS * EPOCH)}
    assert len(rates) == EPOCHS
    assert factor(1.0) == 0  # asked for after the last iteration


@pytest.fixture
def model():
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return nn.ModuleDict({"backbone": body, "head": nn.Conv2d(4, 1, 1)})


def test_frozen_parts_keep_weights_and_statistics(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    freeze(model, ["backbone"])
    optimizer = torch.optim.SGD(params_by_name(model, base_lr=1.0), lr=1.0, weight_decay=0.1)
    model.train()
    model["head"](model["backbone"](torch.randn(2, 3, 4, 4))).sum().backward()
    optimizer.step()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("backbone"), key


def test_a_single_parameter_may_be_frozen(model):
    freeze(model, ["head.bias", "backbone.0"])
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["backbone.1.weight", "backbone.1.bias", "head.weight"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["backbon"], r"no parameters in 'backbon'\. Did you mean backbone\?"),
        (["back"], "no parameters in 'back'"),
        (["backbone", "head"], "leaves nothing to train"),
    ],
)
def test_mistakes_in_frozen_parts(model, parts, message):
    with pytest.raises(InputError, match=message):
        freeze(model, parts)


@pytest.mark.parametrize("value", ["backbone", "[1]", "3"])
def test_frozen_parts_are_a_list_of_names(value):
    config = config_file("quick/atss_R_18_FPN_rs_300it")
    with pytest.raises(InputError, match=r"train\.freeze is .*: expected a list of names"):
        load_config(config, [f"train.freeze={value}"])


def test_layer_decay_multiplies_the_rates_of_parts_and_is_logged(caplog):
    config = config_file("quick/atss_R_18_FPN_rs_300it")
    node = load_config(config, ["train.layer_decay=0.5"])[0].model
    model = instantiate(node)
    groups = params_by_name(
        model, base_lr=1.0, layer_decay=0.5, lr_factors={"backbone.bottom_up": 0.1, "head": 2.0}
    )
    optimizer = torch.optim.SGD(groups, lr=1.0)
    names = {p: name for name, p in model.named_parameters()}
    found = {names[p]: group["lr"] for group in groups for p in group["params"]}
    for part, rate in {"res2": 0.1 / 16, "res5": 0.1 / 2, "fpn_output3": 1.0, "head": 2.0}.items():
        rates = [lr for name, lr in found.items() if part in name.split(".")]
        assert rates and rates == pytest.approx([rate] * len(rates)), part
    with caplog.at_level("INFO", "brloss_d2.engine.optimizer"):
        log_rates(model, optimizer)
    assert re.search(r"(?m)^0\.05 +2,\d+,\d+ +backbone\.bottom_up\.res5$", caplog.text)
    assert len(caplog.text.splitlines()) < 12


def test_one_rate_is_not_logged(model, caplog):
    with caplog.at_level("INFO", "brloss_d2.engine.optimizer"):
        log_rates(model, torch.optim.SGD(params_by_name(model, base_lr=1.0), lr=1.0))
    assert not caplog.text


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["train.layer_decay=1.5"], r"layer_decay is 1\.5: expected a number above 0, at most 1"),
        (["train.layer_decay=x"], r"train\.layer_decay is 'x': expected a number above 0"),
    ],
)
def test_mistakes_in_layer_decay(opts, message):
    with pytest.raises(InputError, match=message):
        check_parts(load_config(config_file("quick/atss_R_18_FPN_rs_300it"), opts)[0], opts)
