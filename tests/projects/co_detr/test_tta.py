"""Test-time augmentation of a detector without non-maximum suppression."""

import torch

from brloss_d2.modeling import DetectorWithTTA
from tests.helpers.random_inputs import random_inputs
from tests.projects.co_detr.golden_detector import CLASSES, small_detector


@torch.no_grad()
def test_one_view_and_several() -> None:
    model = small_detector("brs").eval()
    batch = random_inputs(0, num_classes=CLASSES)
    plain, one, several = (
        detector(batch)[0]["instances"]
        for detector in (
            model,
            DetectorWithTTA(model, short_edge_length=96, max_size=320, scales=[1.0], flip=False),
            DetectorWithTTA(model, short_edge_length=96, max_size=320, scales=[0.75, 1.0]),
        )
    )
    assert torch.equal(one.pred_boxes.tensor, plain.pred_boxes.tensor)
    assert torch.equal(one.scores, plain.scores)
    assert 0 < len(several) <= len(plain)
    assert several.scores.max() >= plain.scores.max()
