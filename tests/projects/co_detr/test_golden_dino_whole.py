"""Co-DINO with both kinds of losses against the published implementation, from images on.

The weights of the file in our detector, one training step and inference. What the published code
draws at random is taken from the file.
"""

import pytest

from tests.helpers.golden_models import load
from tests.projects.co_detr.golden_dino import NAMES, detector, use_stored_draws
from tests.projects.co_detr.golden_training import assert_detections, assert_training_step


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return load(request.param)


@pytest.fixture(scope="module")
def model(golden):
    return detector(golden)


def test_training_step(golden, model):
    assert_training_step(model, golden, draws=use_stored_draws)


def test_training_step_with_balanced_boxes(golden):
    if "balanced/loss_total" not in golden:
        pytest.skip("the baseline balances nothing")
    model = detector(golden, unbalanced=False)
    assert_training_step(model, golden, case="balanced/", draws=use_stored_draws)


def test_detections(golden, model):
    assert_detections(model, golden)
