"""Co-Deformable-DETR and BRS-DETR against the published implementation, from images to detections.

The weights of the file in our detector, one training step and inference. What the published code
draws at random is taken from the file.
"""

import pytest

from tests.helpers.golden_models import available, load
from tests.projects.co_detr.golden_detector import NAMES, detector
from tests.projects.co_detr.golden_training import assert_detections, assert_training_step


@pytest.fixture(scope="module", params=available(*NAMES))
def golden(request):
    return load(request.param)


@pytest.fixture(scope="module")
def model(golden):
    return detector(golden)


def test_training_step(golden, model):
    assert_training_step(model, golden)


def test_detections(golden, model):
    assert_detections(model, golden)
