"""Auxiliary heads and all losses of BRS-DETR against the published implementation."""

from dataclasses import replace

import pytest
import torch
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage

from brloss_d2.criteria import RankingCriterion
from brloss_d2.losses import paired_box_iou
from tests.helpers.golden_models import available, ground_truth, load, relative
from tests.projects.co_detr.golden_detector import (
    CLASSES,
    NAMES,
    detector,
    inputs,
    use_stored_samples,
)

LEVELS = range(5)
# Sets of logits with a loss of their own, in the order of a training step.
DECODER = [f"main_layer{d}" for d in range(3)]
CUSTOM = [f"aux{head}_layer{d}" for head in range(2) for d in range(3)]
SITES = ["encoder", *DECODER, "rpn", "roi", "atss", *CUSTOM]
ANCHOR_HEADS = {"rpn": (9, 1), "atss": (1, CLASSES)}  # anchors per cell, classes


@pytest.fixture(scope="module", params=available(*NAMES))
def golden(request):
    return load(request.param)


@pytest.fixture(scope="module")
def model(golden):
    return detector(golden).train()


def maps(golden, model) -> list[torch.Tensor]:
    """Pyramid of the stored memory."""
    levels = golden.tensor("encoder/memory").split(
        golden.tensor("geometry/spatial_shapes").prod(1).tolist(), 1
    )
    shapes = golden.tensor("geometry/spatial_shapes").tolist()
    found = [x.transpose(1, 2).unflatten(2, shape) for x, shape in zip(levels, shapes, strict=True)]
    return [*found, golden.tensor("pyramid/p4")]


def test_anchors_and_their_objects(golden, model):
    rpn = model.proposal_generator
    anchors = rpn.anchor_generator(maps(golden, model))
    found = torch.cat([x.tensor for x in anchors])
    torch.testing.assert_close(found, golden.tensor("rpn/anchors"), rtol=0, atol=1e-4)
    sampled, rpn.batch_size_per_image = rpn.batch_size_per_image, None
    labels, boxes = rpn.label_and_sample_anchors(anchors, ground_truth(golden))
    rpn.batch_size_per_image = sampled
    for i, objects in enumerate(ground_truth(golden)):
        valid = golden.tensor("rpn/valid")[i].bool()
        stored = golden.tensor(f"rpn/target/assigned_gt{i}").long()
        assert (labels[i][~valid] == -1).all()
        assert torch.equal(labels[i][valid].long(), stored.clamp(max=1))
        owners = stored[stored > 0] - 1
        assert torch.equal(boxes[i][valid][stored > 0], objects.gt_boxes.tensor[owners])


def test_outputs_of_the_rpn(golden, model):
    features = maps(golden, model)
    with torch.no_grad():
        logits, deltas = model.proposal_generator.rpn_head(features)
    for level in LEVELS:
        for kind, found in (("objectness", logits), ("deltas", deltas)):
            expected = golden.tensor(f"rpn/{kind}/p{level}")
            torch.testing.assert_close(found[level], expected, rtol=0, atol=1e-5)


def test_proposals(golden, model):
    named = {f"p{3 + i}": x for i, x in enumerate(maps(golden, model))}
    sizes = [x.image_size for x in ground_truth(golden)]
    images = ImageList(golden.tensor("input/batch"), sizes)
    rpn = model.proposal_generator
    with torch.no_grad(), EventStorage():
        features = [named[f] for f in rpn.in_features]
        anchors = rpn.anchor_generator(features)
        logits, deltas = rpn.rpn_head(features)
        flat = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        boxes = [
            x.view(2, 9, 4, *x.shape[-2:]).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas
        ]
        found = RPN.predict_proposals(rpn, anchors, flat, boxes, images.image_sizes)
    for i, proposals in enumerate(found):
        stored = golden.tensor(f"rpn/proposals{i}")
        assert len(proposals) == len(stored)
        ours = proposals.proposal_boxes.tensor
        torch.testing.assert_close(ours, stored[:, :4], rtol=0, atol=1e-3)
        scores = proposals.objectness_logits.sigmoid()
        torch.testing.assert_close(scores, stored[:, 4], rtol=0, atol=1e-6)


def test_dense_head(golden, model):
    head, features = model.dense_head, maps(golden, model)
    with torch.no_grad():
        outputs = head.head(features)
    for kind, levels in zip(("cls_logits", "deltas", "centerness"), outputs, strict=True):
        assert (levels is None) == (f"atss/{kind}/p0" not in golden)
        for level, found in enumerate(levels or []):
            expected = golden.tensor(f"atss/{kind}/p{level}")
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    with EventStorage():
        _, rows = head(features, ground_truth(golden))
    assert torch.equal(torch.stack(rows.labels), golden.tensor("atss/target/labels").long())
    boxes = golden.tensor("atss/handed_over/boxes")
    torch.testing.assert_close(torch.stack(rows.boxes), boxes, rtol=0, atol=1e-4)
    image, row = golden.tensor("atss/target/positive_image_and_index").long().unbind(1)
    expected = golden.tensor("atss/target/positive_box_targets")
    torch.testing.assert_close(torch.stack(rows.gt_boxes)[image, row], expected)


@pytest.fixture(scope="module")
def sites(golden, model):
    """Input of each ranking criterion in a training step, by site."""
    if not golden.name.startswith("brs"):
        pytest.skip("the baseline ranks nothing")
    calls = []
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: calls.extend(inputs[0].layers()))
        for module in model.modules()
        if isinstance(module, RankingCriterion)
    ]
    with EventStorage(), use_stored_samples(model, golden):
        model(inputs(golden))
    for handle in handles:
        handle.remove()
    assert len(calls) == len(SITES)
    return dict(zip(SITES, calls, strict=True))


@pytest.mark.parametrize("site", SITES)
def test_targets_and_gradients_of_the_logits(golden, model, sites, site):
    matched = sites[site]
    matched = replace(matched, logits=matched.logits.detach().requires_grad_())
    targets = matched.binary_labels().float()
    rows = matched.foreground
    quality = paired_box_iou(matched.pred_boxes.detach(), matched.gt_boxes)
    targets[rows, matched.labels[rows]] = quality
    stored = golden.tensor(f"site/{site}/targets")
    ours = as_stored(golden, site, targets)
    torch.testing.assert_close(ours, stored, rtol=0, atol=2e-5)
    assert torch.equal(ours == -1, stored == -1)

    losses = model.dense_head.criterion(matched).losses
    values = torch.stack([losses["loss_rank"], losses["loss_sort"]])
    expected = golden.tensor(f"site/{site}/rank_sort")
    torch.testing.assert_close(values.detach(), expected, rtol=1e-4, atol=1e-6)
    values.sum().backward()
    gradient = as_stored(golden, site, matched.logits.grad)
    assert relative(gradient, golden.tensor(f"site/{site}/logit_grad")) < 1e-3


def as_stored(golden, site: str, rows: torch.Tensor) -> torch.Tensor:
    """Flatten in the stored order, which is level by level for heads with anchors."""
    if site in ANCHOR_HEADS:
        anchors, classes = ANCHOR_HEADS[site]
        kind = "objectness" if site == "rpn" else "deltas"
        cells = [golden.tensor(f"{site}/{kind}/p{i}")[0, 0].numel() * anchors for i in LEVELS]
        rows = rows.view(2, -1, classes)
        rows = torch.cat([part.flatten(0, 1) for part in rows.split(cells, 1)])
    return rows.flatten()
