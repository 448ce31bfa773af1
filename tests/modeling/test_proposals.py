"""The proposals of the RPN are those of detectron2, to the last bit."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.proposal_generator.rpn import RPN

from brloss_d2.model_zoo import get_config

SIZES = [(96, 128), (80, 112)]


@pytest.fixture(scope="module")
def rpn():
    rpn = instantiate(get_config("quick/faster_rcnn_R_18_FPN_brs_300it").model.proposal_generator)
    rpn.post_nms_topk = {True: 300, False: 40}
    return rpn


def outputs(rpn, scale: float):
    torch.manual_seed(0)
    maps = [torch.zeros(2, 1, 96 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    anchors = rpn.anchor_generator(maps)
    logits = [torch.randn(2, len(x)) for x in anchors]
    return anchors, logits, [scale * torch.randn(2, len(x), 4) for x in anchors]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [0.3, 3.0])  # with the larger one, some are outside of the image
@pytest.mark.parametrize("topk", [50, 2000])
def test_proposals_are_those_of_detectron2(rpn, training, scale, topk):
    rpn.train(training).pre_nms_topk = {training: topk}
    anchors, logits, deltas = outputs(rpn, scale)
    if not training:  # which leaves them out
        deltas[0][0, :5], logits[1][1, 3] = torch.nan, torch.inf
    expected = RPN.predict_proposals(rpn, anchors, logits, deltas, SIZES)
    found = rpn.predict_proposals(anchors, logits, deltas, SIZES)
    for one, other in zip(expected, found, strict=True):
        assert len(one) > 30
        assert one.image_size == other.image_size
        assert torch.equal(one.proposal_boxes.tensor, other.proposal_boxes.tensor)
        assert torch.equal(one.objectness_logits, other.objectness_logits)


def test_a_diverged_rpn(rpn):
    rpn.train().pre_nms_topk = {True: 2000}
    anchors, logits, deltas = outputs(rpn, 1.0)
    logits[0][1, 7] = torch.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        rpn.predict_proposals(anchors, logits, deltas, SIZES)
