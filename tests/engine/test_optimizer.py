"""Schedules of the learning rate, and parts that are not trained."""

import pytest
import torch
from torch import nn

from brloss_d2.engine import StepCosineParamScheduler, load_config, params_by_name
from brloss_d2.engine.optimizer import freeze
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
