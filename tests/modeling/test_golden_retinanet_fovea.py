"""RetinaNet and FoveaBox with aLRP and AP Loss against the published implementation.

One file of each is shipped; with BRLOSS_D2_GOLDEN naming the folder of the full set, RetinaNet with
the assigner of ATSS and with AP Loss are compared as well.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes

from brloss_d2.modeling.one_stage.assigners import LevelAnchors
from brloss_d2.modeling.one_stage.head import DenseOutputs
from tests.helpers.golden_models import (
    Golden,
    assert_gradients,
    available,
    ground_truth,
    load,
    relative,
)
from tests.helpers.small_one_stage import (
    CLASSES,
    build,
    detect,
    difference_of_detections,
    run,
    small_config,
)

LEVELS = range(3, 8)
TERMS = {"loss_rank": "loss_cls", "loss_box_reg": "loss_bbox"}
OUTPUTS = ("cls_logits", "box_outputs")


@dataclass
class Case:
    leaf: str
    architecture: str
    changes: dict[str, Any] = field(default_factory=dict)


CASES = {
    "retinanet_alrp": Case("retinanet_R_50_FPN_alrp_iou_500s_100e", "retinanet"),
    "retinanet_ap": Case("retinanet_R_50_FPN_ap_iou_500s_100e", "retinanet"),
    "retinanet_alrp_atss": Case(
        "retinanet_R_50_FPN_alrp_500s_100e", "retinanet", {"assigner": {"topk": 4}}
    ),
    "foveabox_alrp": Case("fovea_R_50_FPN_alrp_500s_100e", "fovea"),
}


@pytest.fixture(params=available(*CASES))
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def model(golden):
    case = CASES[golden.name]
    cfg = small_config(case.leaf, tower=32)
    cfg.merge_with(case.changes)
    cfg.postprocessor.select.topk = 300
    return build(cfg, golden, case.architecture)


def outputs(golden) -> DenseOutputs:
    return DenseOutputs(
        *(
            [golden.tensor(f"head/{kind}/p{level}").requires_grad_() for level in LEVELS]
            for kind in OUTPUTS
        )
    )


def anchors(golden, model) -> list[Boxes]:
    return model.anchor_generator([golden.tensor(f"head/cls_logits/p{level}") for level in LEVELS])


def match(golden, model, predictions):
    return model.matcher(anchors(golden, model), predictions, ground_truth(golden)).matched


def level_major(golden, by_image: torch.Tensor) -> torch.Tensor:
    """Rows in the stored order, level by level, from (N, R, ...)."""
    sizes = [golden.tensor(f"head/box_outputs/p{level}")[0].numel() // 4 for level in LEVELS]
    return torch.cat([part.flatten(0, 1) for part in by_image.split(sizes, 1)])


def labels_of(matched) -> torch.Tensor:
    return matched.labels.view(matched.num_images, -1)


def test_anchors(golden, model):
    if "head/anchors" in golden:
        ours = LevelAnchors.cat(anchors(golden, model))
        torch.testing.assert_close(ours.boxes, golden.tensor("head/anchors"), rtol=0, atol=1e-4)


def test_assignment(golden, model):
    matched = match(golden, model, outputs(golden))
    labels = labels_of(matched)
    expected = golden.tensor("head/target/labels").long()
    if expected.ndim == 1:  # FoveaBox has no weights: every cell counts
        assert torch.equal(level_major(golden, labels), expected)
        return
    weights = golden.tensor("head/target/label_weights")
    assert torch.equal(labels == -1, weights == 0)
    assert torch.equal(labels[weights > 0], expected[weights > 0])
    for i in range(2):
        valid = golden.tensor("head/valid")[i].bool()
        inside = LevelAnchors.cat(anchors(golden, model))[valid.nonzero().squeeze(1)]
        stored = golden.tensor(f"head/target/assigned_gt{i}").long()
        ours = model.matcher.assigner(inside, ground_truth(golden)[i])
        published = torch.where(stored > 0, stored - 1, torch.where(stored == 0, -1, -2))
        assert torch.equal(ours, published)


def test_ranking_targets(golden, model):
    targets = match(golden, model, outputs(golden)).binary_labels()
    stored = golden.tensor("site/head/targets")
    ours = level_major(golden, targets.view(2, -1, CLASSES)).flatten()
    assert torch.equal(ours, stored)


def test_box_targets(golden, model):
    matched = match(golden, model, outputs(golden))
    foreground = labels_of(matched)
    foreground = (foreground >= 0) & (foreground < CLASSES)
    table = torch.zeros(*foreground.shape, 4)
    table[foreground] = matched.gt_deltas
    if "head/target/positive_log_distance" in golden:
        rows = golden.tensor("head/target/positive_index").long()
        ours = level_major(golden, table)[rows]
        expected = golden.tensor("head/target/positive_log_distance")
    else:
        image, anchor = golden.tensor("head/target/positive_image_and_index").long().unbind(1)
        ours = table[image, anchor]
        expected = golden.tensor("head/target/positive_delta_targets")
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5)


def test_localization_errors(golden, model):
    if "site/head/error" not in golden:
        pytest.skip("AP Loss has none")
    matched = match(golden, model, outputs(golden))
    errors = matched.box_losses(model.criterion.box_loss)
    foreground = (matched.labels >= 0) & (matched.labels < CLASSES)
    table = torch.full(foreground.shape, torch.nan)
    table[foreground] = errors.detach()
    stored_order = level_major(golden, table.view(2, -1))
    ours = stored_order[~stored_order.isnan()]
    torch.testing.assert_close(ours, golden.tensor("site/head/error"), rtol=1e-5, atol=1e-6)


def assert_losses(golden, losses, rtol: float, prefix: str = "loss") -> None:
    for name, value in losses.items():
        expected = golden.tensor(f"{prefix}/{TERMS[name]}")
        torch.testing.assert_close(value.detach(), expected, rtol=rtol, atol=0)


def test_losses_and_gradients(golden, model):
    predictions = outputs(golden)
    losses = model.criterion(match(golden, model, predictions)).losses
    assert_losses(golden, losses, rtol=1e-5)
    losses["loss_rank"].backward()
    grads = model._transpose_dense_predictions([[x.grad for x in predictions[0]]], [CLASSES])[0]
    ours = torch.cat([level.flatten() for level in grads])
    assert relative(ours, golden.tensor("site/head/logit_grad")) < 1e-4


def test_whole_training_step(golden, model):
    features, predictions, losses = run(model, golden.tensor("input/batch"), ground_truth(golden))
    for level, found in zip(LEVELS, features, strict=True):
        expected = golden.tensor(f"neck/p{level}")
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
    for kind, maps in zip(OUTPUTS, predictions[:2], strict=True):
        for level, found in zip(LEVELS, maps, strict=True):
            expected = golden.tensor(f"head/{kind}/p{level}")
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert_losses(golden, losses, rtol=1e-5)
    total = sum(losses.values())
    torch.testing.assert_close(total.detach(), golden.tensor("loss_total"), rtol=1e-5, atol=0)
    total.backward()
    assert_gradients(model, golden, CASES[golden.name].architecture)


def test_self_balancing_over_three_steps(golden, model):
    """Losses of the batch times 1, 1/2 and 1/4, with a period of two."""
    if "self_balance_sequence/step0/loss_cls" not in golden:
        pytest.skip("AP Loss is not balanced")
    balancer = model.criterion.balancer
    balancer.pools_per_epoch = 2
    for step in range(3):
        prefix = f"self_balance_sequence/step{step}"
        batch = golden.tensor("input/batch") * 0.5**step
        _, _, losses = run(model, batch, ground_truth(golden))
        assert_losses(golden, losses, rtol=1e-5, prefix=prefix)
        expected = golden.tensor(f"{prefix}/weight_after_head")
        torch.testing.assert_close(balancer.weight, expected, rtol=1e-5, atol=0)


def test_detections(golden, model):
    sizes = [x.image_size for x in ground_truth(golden)]
    found = detect(model.eval(), golden.tensor("input/batch"), sizes)
    for i, detections in enumerate(found):
        prefix = f"detections/network_scale/image{i}"
        stored = golden.tensor(f"{prefix}/boxes_scores")
        pixels, score = difference_of_detections(
            detections, stored[:, :4], stored[:, 4], golden.tensor(f"{prefix}/classes")
        )
        assert pixels < 1e-3
        assert score < 1e-5
