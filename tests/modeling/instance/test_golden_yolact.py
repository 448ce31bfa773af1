"""YOLACT with RS and with cross-entropy against the published implementation.

The file of RS is shipped; with BRLOSS_D2_GOLDEN naming the folder of the full set, the baseline is
compared as well, and what the shipped copy leaves out.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import ImageList, Instances
from torch import Tensor

from brloss_d2.checkpoint import to_mmdetection
from brloss_d2.criteria import CriterionOutput
from brloss_d2.modeling import YOLACT
from brloss_d2.modeling.instance import CoefficientOutputs
from brloss_d2.modeling.instance.prototypes import prototype_masks
from brloss_d2.modeling.instance.yolact import at_original_size
from brloss_d2.modeling.one_stage import DenseMatch
from brloss_d2.modeling.one_stage.head import DenseOutputs
from tests.helpers.criteria import build_criterion
from tests.helpers.golden_models import (
    Golden,
    available,
    differences_of_detections,
    differences_of_gradients,
    ground_truth,
    load,
    load_weights,
    relative,
)
from tests.helpers.small_yolact import small_config

SIZE = (170, 170)
LEVELS = range(5)
LOSSES = {"yolact_rs": "rs", "yolact_baseline": "ce"}
# Our name of each published term.
TERMS = {
    "yolact_rs": ("loss_rank", "loss_sort", "loss_box_reg", "loss_mask"),
    "yolact_baseline": ("loss_cls", "loss_box_reg", "loss_mask", "loss_semantic"),
}
PUBLISHED = {"loss_box_reg": "loss_bbox", "loss_semantic": "loss_segm"}


@pytest.fixture(params=available(*LOSSES))
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def model(golden) -> YOLACT:
    return build(golden)


@pytest.fixture
def rs() -> Golden:
    return load("yolact_rs")


@pytest.fixture
def baseline() -> Golden:
    if not available("yolact_baseline"):
        pytest.skip("the full set of golden files is not there")
    return load("yolact_baseline")


def build(golden: Golden) -> YOLACT:
    cfg = small_config(LOSSES[golden.name])
    if cfg.semantic_head is not None:
        cfg.semantic_head.published_shift = True
    model = instantiate(cfg).train()
    load_weights(model, golden, "yolact")
    return model


def skip_without(golden: Golden, *keys: str) -> None:
    if missing := [key for key in keys if key not in golden]:
        pytest.skip(f"{golden.name} has no {', '.join(missing)}")


def outputs(golden: Golden, folder: str = "head") -> CoefficientOutputs:
    logits, deltas, coefficients = (
        [golden.tensor(f"{folder}/{kind}{level}").requires_grad_() for level in LEVELS]
        for kind in ("cls", "reg", "coeff")
    )
    return CoefficientOutputs(DenseOutputs(logits, deltas), coefficients)


class Step(NamedTuple):
    """What a detector makes of stored outputs, up to the losses.

    Attributes:
        match: objects of the anchors.
        output: losses of classes and boxes.
        logits: (P, h, w) mask logits of the foreground anchors.
        targets: (P, h, w) masks of their objects.
        masks: losses of the masks.
    """

    match: DenseMatch
    output: CriterionOutput
    logits: Tensor
    targets: Tensor
    masks: CriterionOutput


def step(
    golden: Golden,
    model: YOLACT,
    maps: CoefficientOutputs | None = None,
    prototypes: Tensor | None = None,
) -> Step:
    """Compute the losses of the stored outputs, or of others."""
    maps = maps or outputs(golden)
    prototypes = golden.tensor("proto") if prototypes is None else prototypes
    objects = ground_truth(golden)
    anchors = model.anchor_generator(maps.dense.logits, SIZE)
    match = model.matcher(anchors, maps.dense, objects)
    output = model.criterion(match.matched)
    rows = model._rows(maps).flatten(0, 1)
    compared = []
    model.mask_criterion.mask_loss.register_forward_pre_hook(lambda _, x: compared.append(x))
    masks = model.mask_criterion(model._match_masks(prototypes, rows, match, output, objects, SIZE))
    logits, targets = (torch.cat(x) for x in zip(*compared, strict=True))
    return Step(match, output, logits, targets, masks)


def bits(golden: Golden, packed: str, shape: str) -> Tensor:
    """Unpack stored masks; the shape is stored, or that of another array."""
    stored = golden.tensor(shape)
    sizes = stored.tolist() if stored.ndim == 1 else list(stored.shape)
    flat = np.unpackbits(golden.tensor(packed).numpy(), count=int(np.prod(sizes)))
    return torch.from_numpy(flat).view(sizes).bool()


def assert_losses(golden: Golden, losses: dict[str, Tensor], case: str = "") -> None:
    assert losses.keys() == set(TERMS[golden.name])
    for name, value in losses.items():
        expected = golden.tensor(f"{case}loss/{PUBLISHED.get(name, name)}")
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=1e-6, msg=name)
    total = sum(losses.values()).detach()
    torch.testing.assert_close(total, golden.tensor(f"{case}loss/total"), rtol=1e-5, atol=0)


def test_anchors(rs):
    model = build(rs)
    anchors = model.anchor_generator(outputs(rs).dense.logits, SIZE)
    for level, (found, stride) in enumerate(zip(anchors, rs.tensor("in/strides"), strict=True)):
        width = rs.tensor(f"head/cls{level}").shape[-1]
        torch.testing.assert_close(
            found.tensor[:3], rs.tensor("in/base_anchors")[level], rtol=0, atol=2e-5
        )
        # The first anchors of the second column, and of the second row.
        for first, offset in ((3, [1, 0, 1, 0]), (3 * width, [0, 1, 0, 1])):
            moved = found.tensor[:3] + stride.float() * torch.tensor(offset)
            torch.testing.assert_close(found.tensor[first : first + 3], moved, rtol=0, atol=5e-5)


def test_assignment(golden, model):
    match, _, _, targets, _ = step(golden, model)
    for i in range(2):
        assert torch.equal(match.assigned[i], golden.tensor(f"head/assigned{i}"))
    torch.testing.assert_close(
        match.matched.gt_deltas, golden.tensor("head/box_targets"), rtol=1e-5, atol=2e-5
    )
    expected = bits(golden, "mask/targets_packed", "mask/targets_shape")
    assert torch.equal(targets, expected)


def test_ranking_targets(rs):
    model = build(rs)
    match, output, *_ = step(rs, model)
    quality = match.matched.localization_quality()
    torch.testing.assert_close(quality, rs.tensor("head/ious"), rtol=0, atol=2e-6)
    labels = match.matched.binary_labels().flatten().float()
    labels[match.matched.positives] = quality
    torch.testing.assert_close(labels, rs.tensor("head/rank_targets"), rtol=0, atol=2e-6)
    torch.testing.assert_close(output.box_weights, rs.tensor("head/weights"), rtol=1e-6, atol=0)


def test_hard_negatives(baseline):
    model = build(baseline)
    match = step(baseline, model).match
    values = torch.nn.functional.cross_entropy(
        match.matched.logits, match.matched.labels, ignore_index=-1, reduction="none"
    )
    chosen = model.criterion.hard_negatives(values, match.matched).view(2, -1)
    for i in range(2):
        expected = baseline.tensor(f"head/ohem_negatives{i}")
        assert torch.equal(chosen[i].nonzero().squeeze(1), expected)


def test_masks(golden, model):
    match, output, logits, targets, masks = step(golden, model)
    probs = logits.sigmoid()
    torch.testing.assert_close(
        probs.sum((1, 2)), golden.tensor("mask/pred_sum"), rtol=1e-5, atol=1e-3
    )
    first = match.matched.positives_per_image[0]
    shown = torch.cat([probs[:3], probs[first : first + 3]])
    torch.testing.assert_close(shown, golden.tensor("mask/pred_first3"), rtol=0, atol=1e-5)
    if "mask/dice" in golden:
        dice = 1 - model.mask_criterion.mask_loss(logits, targets)
        torch.testing.assert_close(dice, golden.tensor("mask/dice"), rtol=0, atol=1e-5)
        for key, found in (
            ("mask/loss_unbalanced", masks.metrics()["mask_unbalanced"]),
            ("head/box_loss_unbalanced", output.metrics()["box_reg_unbalanced"]),
        ):
            torch.testing.assert_close(found, golden.tensor(key), rtol=1e-5, atol=0)


def test_masks_by_area(baseline):
    """The mask term of the original, which the published copy left out."""
    model = build(baseline)
    model.masks_by_area = True
    loss = step(baseline, model).masks.losses["loss_mask"]
    expected = baseline.tensor("mask/loss_with_area_normalisation")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_semantic_targets(baseline):
    head = build(baseline).semantic_head
    expected = bits(baseline, "segm/targets_packed", "segm/logits")
    for objects, stored in zip(ground_truth(baseline), expected, strict=True):
        targets = head.targets(objects, SIZE, stored.shape[-2:])
        assert torch.equal(targets, stored.float())
    # The right classes unless the published code is to be reproduced.
    head.published_shift = False
    unshifted = head.targets(ground_truth(baseline)[1], SIZE, expected.shape[-2:])
    assert torch.equal(unshifted, expected[1].float().roll(1, 0))


@pytest.mark.parametrize("case", ["", "brs/"])
def test_losses_and_gradients_of_the_outputs(golden, model, case):
    skip_without(golden, f"{case}gradout/cls0")
    if case:
        model.criterion = build_criterion("brs", "yolact")
    maps, prototypes = outputs(golden), golden.tensor("proto").requires_grad_()
    _, output, _, _, masks = step(golden, model, maps, prototypes)
    losses = {**output.losses, **masks.losses}
    expected = {name: golden.tensor(f"{case}loss/{PUBLISHED.get(name, name)}") for name in losses}
    for name, value in losses.items():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    stored = {"cls": maps.dense.logits}
    if not case:
        stored |= {"reg": maps.dense.deltas, "coeff": maps.coefficients}
        assert relative(prototypes.grad, golden.tensor("gradout/proto")) < 1e-4
    for kind, levels in stored.items():
        for level, x in enumerate(levels):
            assert relative(x.grad, golden.tensor(f"{case}gradout/{kind}{level}")) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("folder", ["head", "test0"])
def test_maps(golden, model, folder):
    """Outputs with the statistics of the batch, and of the first image with stored statistics."""
    images = golden.tensor("in/img")
    if folder == "test0":
        model, images = model.eval(), images[:1]
    features = list(model.backbone(images).values())
    maps, prototypes = model.head(features), model.prototype_net(features[0])
    stored = golden.tensor("proto" if folder == "head" else "test0/proto")
    torch.testing.assert_close(prototypes, stored, rtol=0, atol=1e-4)
    for level in LEVELS:
        found = {
            f"{folder}/cls{level}": maps.dense.logits[level],
            f"{folder}/reg{level}": maps.dense.deltas[level],
            f"{folder}/coeff{level}": maps.coefficients[level],
        }
        if folder == "head":
            found[f"fpn/{level}"] = features[level][:, :4]
        for name, values in found.items():
            torch.testing.assert_close(values, golden.tensor(name), rtol=0, atol=5e-5, msg=name)


@pytest.mark.parametrize("case", ["", "brs/", "nogt1/", "nogt_all/"])
def test_whole_training_step(golden, model, case):
    skip_without(golden, f"{case}loss/total", f"{case}gradnorm")
    images = golden.tensor("in/img")
    if case == "brs/":
        model.criterion = build_criterion("brs", "yolact")
    objects = ground_truth(golden, {"nogt1/": (1,), "nogt_all/": (0, 1)}.get(case, ()))
    features = list(model.backbone(images).values())
    maps = model.head(features)
    losses = model.forward_training(ImageList(images, [SIZE, SIZE]), features, maps, objects)
    assert_losses(golden, losses, case)
    sum(losses.values()).backward()
    by_gradient, by_norm = differences_of_gradients(model, golden, "yolact", case)
    assert max(by_norm.values()) < 1e-4
    assert max(by_gradient.values(), default=0) < 1e-4
    assert len(by_gradient) > 10 or case


def test_running_statistics(golden, model):
    model.backbone(golden.tensor("in/img"))
    state = to_mmdetection(model.state_dict(), "yolact")
    names = golden.keys("bn_after/")
    assert len(names) > 30
    for name in names:
        torch.testing.assert_close(
            state[name.removeprefix("bn_after/")], golden.tensor(name), rtol=1e-5, atol=1e-6
        )


def detections(golden: Golden, model: YOLACT, image: int, *, stored: bool) -> Instances:
    """Detect in one image, from its pixels or from stored maps, at the original size."""
    model.eval()
    batch = golden.tensor("in/img")[image : image + 1]
    features = list(model.backbone(batch).values())
    maps = outputs(golden, "test0") if stored else model.head(features)
    found = model.forward_inference(ImageList(batch, [SIZE]), features, maps)[0]
    return at_original_size(found, SIZE, tuple(golden.tensor("in/ori_shape")[image].tolist()))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("test0", {}),
        ("test0_all", {"score_thresh": 0.5, "max_detections": 2000}),
        (
            "test0_small",
            {"topk": 50, "max_per_class": 12, "score_thresh": 0.3, "max_detections": 15},
        ),
    ],
)
def test_detections_of_stored_maps(golden, model, name, changes):
    skip_without(golden, f"{name}/boxes")
    for key, value in changes.items():
        setattr(model.postprocessor, key, value)
    found = detections(golden, model, 0, stored=True)
    # In the same order.
    torch.testing.assert_close(found.scores, golden.tensor(f"{name}/scores"), rtol=0, atol=1e-6)
    assert torch.equal(found.pred_classes, golden.tensor(f"{name}/labels"))
    boxes = golden.tensor(f"{name}/boxes")
    torch.testing.assert_close(found.pred_boxes.tensor, boxes, rtol=0, atol=1e-3)
    if f"{name}/masks_packed" in golden:
        expected = bits(golden, f"{name}/masks_packed", f"{name}/masks_shape")
        assert torch.equal(found.pred_masks, expected)  # not a pixel differs


@torch.no_grad()
def test_mask_probabilities(golden, model):
    rows = slice(0, 4)
    boxes, (height, width) = golden.tensor("test0/boxes")[rows], golden.tensor("in/ori_shape")[0]
    at_input = boxes / torch.stack([width, height, width, height]) * SIZE[0]
    coefficients = golden.tensor("test0/coeffs")[rows]
    logits = prototype_masks(golden.tensor("test0/proto")[0], coefficients, at_input, SIZE)
    expected = golden.tensor("test0/mask_probs_first4")
    torch.testing.assert_close(logits.sigmoid(), expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("image", [0, 1])
def test_detections_of_images(golden, model, image):
    skip_without(golden, f"test{image}/boxes")
    found = detections(golden, model, image, stored=False)
    pixels, scores, rows = differences_of_detections(golden, found, f"test{image}")
    assert pixels < 1e-3
    assert scores < 1e-5
    expected = bits(golden, f"test{image}/masks_packed", f"test{image}/masks_shape")
    assert torch.equal(found.pred_masks[rows], expected)
