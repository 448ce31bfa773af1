"""Co-DINO with both kinds of losses against the published implementation, from images on.

The weights of the file in our detector, one training step and inference. What the published code
draws at random is taken from the file.
"""

import pytest
import torch

from tests.helpers.golden_models import load
from tests.projects.co_detr.golden_detector import inputs
from tests.projects.co_detr.golden_dino import NAMES, detector, use_stored_draws
from tests.projects.co_detr.golden_training import assert_training_step


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
    images = inputs(golden)
    for x, (height, width) in zip(images, golden.tensor("input/original_hw").tolist(), strict=True):
        x.update(height=height, width=width)
    with torch.no_grad():
        found = model.eval()(images)
    for i, result in enumerate(found):
        prefix = f"detections/original_scale/image{i}"
        stored = golden.tensor(f"{prefix}/boxes_scores")
        ours = result["instances"]
        assert torch.equal(ours.pred_classes, golden.tensor(f"{prefix}/classes").long())
        torch.testing.assert_close(ours.pred_boxes.tensor, stored[:, :4], rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.scores, stored[:, 4], rtol=0, atol=1e-5)
