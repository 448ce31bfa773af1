"""ATSS and PAA against the published implementation: each step with its stored inputs, and whole.

The files of BRS are shipped; with BRLOSS_D2_GOLDEN naming the folder of the full set, those of the
other losses are compared as well.
"""

import pytest
import torch
from detectron2.structures import Boxes

from brloss_d2.checkpoint import to_mmdetection
from brloss_d2.losses import paired_box_iou
from brloss_d2.modeling.one_stage.assigners import AnchorPredictions, LevelAnchors
from brloss_d2.modeling.one_stage.head import DenseOutputs
from tests.helpers.golden_models import Golden, available, ground_truth, load, relative
from tests.helpers.small_one_stage import (
    CLASSES,
    build,
    detect,
    difference_of_detections,
    run,
    small_config,
)

LEVELS = range(5)
LOSSES = ("brs", "rs", "ap", "bap", "focal")
NAMES = available(*(f"{arch}_{x}" for arch in ("atss", "paa") for x in LOSSES))
# Ours, and what the two published detectors call it.
TERMS = {"loss_box_reg": ("loss_bbox",), "loss_quality": ("loss_centerness", "loss_iou")}
KINDS = ("cls", "reg", "aux")


@pytest.fixture(params=NAMES)
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def model(golden):
    arch, loss = golden.name.split("_")
    return build(small_config(f"{arch}_R_50_FPN_{loss}_1x", tower=64), golden, arch)


def outputs(golden) -> DenseOutputs:
    """Logits, deltas and quality of the levels, leaves that collect gradients."""
    return DenseOutputs(
        *(
            [golden.tensor(f"head/{kind}{level}").requires_grad_() for level in LEVELS]
            for kind in KINDS
            if f"head/{kind}0" in golden
        )
    )


def anchors(golden, model) -> list[Boxes]:
    return model.anchor_generator([golden.tensor(f"head/cls{level}") for level in LEVELS])


def match(golden, model, predictions):
    return model.matcher(anchors(golden, model), predictions, ground_truth(golden)).matched


def image_anchors(golden, model, image: int) -> tuple[LevelAnchors, torch.Tensor]:
    """The anchors of an image that count, and their indices."""
    rows = (golden.tensor(f"head/assigned{image}") != -3).nonzero().squeeze(1)
    return LevelAnchors.cat(anchors(golden, model))[rows], rows


def test_anchors(golden, model):
    for level, boxes in enumerate(anchors(golden, model)):
        expected = golden.tensor("in/base_anchors")[level]
        torch.testing.assert_close(boxes.tensor[: len(expected)], expected)


def test_assignment(golden, model):
    """Of ATSS; of PAA the first stage, which names the candidates."""
    assigner = getattr(model.matcher.assigner, "candidates", model.matcher.assigner)
    for i, objects in enumerate(ground_truth(golden)):
        inside, rows = image_anchors(golden, model, i)
        expected = golden.tensor(f"head/assigned{i}")[rows]
        assert torch.equal(assigner(inside, objects), expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("paa")])
def test_scores_and_split_of_paa(name):
    golden = load(name)
    model = build(small_config(f"paa_R_50_FPN_{name[4:]}_1x", tower=64))
    rows = model.matcher.rows(outputs(golden))
    logits, deltas = (torch.cat(x, 1).detach() for x in rows[:2])
    for i, objects in enumerate(ground_truth(golden)):
        inside, rows = image_anchors(golden, model, i)
        boxes = model.matcher.box_transform.apply_deltas(deltas[i][rows], inside.boxes)
        predictions = AnchorPredictions(logits[i][rows], boxes)
        place = torch.searchsorted(rows, golden.tensor(f"paa/cand{i}"))
        owners = golden.tensor(f"paa/cand_gt{i}")
        scores = model.matcher.assigner.candidate_losses(predictions[place], objects, owners)
        expected = golden.tensor(f"paa/cand_loss{i}")
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
        assigned = model.matcher.assigner(inside, objects, predictions)
        labels = torch.where(assigned >= 0, objects.gt_classes[assigned], CLASSES)
        assert torch.equal(labels, golden.tensor(f"paa/labels{i}")[rows])
        assert (assigned >= 0).sum() == golden.tensor(f"paa/num_pos{i}")


def test_padding_is_ignored(golden, model):
    labels = match(golden, model, outputs(golden)).labels.view(2, -1)
    for i in range(2):
        assert torch.equal(labels[i] == -1, golden.tensor(f"head/assigned{i}") == -3)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("focal")])
def test_ranking_targets(name):
    golden = load(name)
    arch, loss = name.split("_")
    model = build(small_config(f"{arch}_R_50_FPN_{loss}_1x", tower=64))
    matched = match(golden, model, outputs(golden))
    targets = matched.binary_labels().float()
    if loss in ("rs", "brs"):
        rows = matched.foreground
        quality = paired_box_iou(matched.pred_boxes, matched.gt_boxes).detach()
        targets[rows, matched.labels[rows]] = quality
    expected = by_image(golden, golden.tensor("head/rank_targets"))
    torch.testing.assert_close(targets.view_as(expected), expected, rtol=1e-5, atol=1e-6)


def by_image(golden, flat: torch.Tensor) -> torch.Tensor:
    """(N, R, K) of a stored flat array; ATSS stores level by level, PAA image by image."""
    if golden.name.startswith("paa"):
        return flat.view(2, -1, CLASSES)
    sizes = [2 * golden.tensor(f"head/cls{level}")[0].numel() for level in LEVELS]
    return torch.cat([part.view(2, -1, CLASSES) for part in flat.split(sizes)], 1)


def assert_losses(golden, losses: dict[str, torch.Tensor], rtol: float, prefix: str = "") -> None:
    for name, value in losses.items():
        keys = [f"{prefix}loss/{key}" for key in TERMS.get(name, (name,))]
        (expected,) = [golden.tensor(key) for key in keys if key in golden]
        torch.testing.assert_close(value.detach(), expected, rtol=rtol, atol=0)
    total = sum(losses.values()).detach()
    torch.testing.assert_close(total, golden.tensor(f"{prefix}loss/total"), rtol=rtol, atol=0)


def test_losses_and_gradients(golden, model):
    predictions = outputs(golden)
    losses = model.criterion(match(golden, model, predictions)).losses
    assert_losses(golden, losses, rtol=1e-5)
    sum(losses.values()).backward()
    assert_output_gradients(golden, predictions)


def assert_output_gradients(golden, predictions) -> None:
    for kind, maps in zip(KINDS, filter(None, predictions), strict=False):
        for level in LEVELS:
            expected = golden.tensor(f"gradout/head/{kind}{level}")
            assert relative(maps[level].grad, expected) < 1e-4, (kind, level)


def test_whole_training_step(golden, model):
    features, predictions, losses = run(model, golden.tensor("in/img"), ground_truth(golden))
    for level in LEVELS:
        expected = golden.tensor(f"fpn/{level}")
        torch.testing.assert_close(features[level][:, :4], expected, rtol=0, atol=5e-5)
        for kind, maps in zip(KINDS, filter(None, predictions), strict=False):
            expected = golden.tensor(f"head/{kind}{level}")
            torch.testing.assert_close(maps[level], expected, rtol=0, atol=2e-5)
            maps[level].retain_grad()
    assert_losses(golden, losses, rtol=1e-5)
    sum(losses.values()).backward()
    assert_output_gradients(golden, predictions)
    assert_parameter_gradients(golden, model)


def gradients(golden, model) -> dict[str, torch.Tensor]:
    """Of all parameters by their published names; NaN where there is none."""
    arch = golden.name.split("_")[0]
    named = {name: torch.full(x.shape, torch.nan) for name, x in model.state_dict().items()}
    named |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return to_mmdetection({n: g for n, g in named.items() if "num_batches" not in n}, arch)


def assert_parameter_gradients(golden, model, prefix: str = "") -> None:
    ours = gradients(golden, model)
    names = golden.names("gradnorm_names")
    for name, expected in zip(names, golden.tensor(f"{prefix}gradnorm"), strict=True):
        norm = ours[name].norm().double()
        if norm.isnan():  # frozen; some of the stored runs have 0 there
            assert expected.isnan() or expected == 0, name
        else:
            torch.testing.assert_close(norm, expected, rtol=1e-4, atol=1e-6, msg=name)
    if not prefix:
        for key in golden.keys("grad/"):
            assert relative(ours[key.removeprefix("grad/")], golden.tensor(key)) < 1e-4, key


@pytest.mark.parametrize("prefix", ["nogt1/", "nogt_all/"])
def test_images_without_objects(golden, model, prefix):
    """Image 1, or both. Where the published code crashes, zeros are expected."""
    objects = ground_truth(golden)
    for i in range(2) if prefix == "nogt_all/" else (1,):
        objects[i] = objects[i][:0]
    _, _, losses = run(model, golden.tensor("in/img"), objects)
    sum(losses.values()).backward()
    if golden.text(f"{prefix}crash"):
        assert all(value == 0 for value in losses.values())
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    else:
        assert_losses(golden, losses, rtol=1e-5, prefix=prefix)
        assert_parameter_gradients(golden, model, prefix)


@pytest.mark.parametrize("prefix", ["test0", "test1", "test0_pre20"])
def test_detections(golden, model, prefix):
    """Each image on its own, padded to a multiple of 32, as the stored run had it."""
    image = int(prefix[4])
    if prefix.endswith("pre20"):
        model.postprocessor.select.topk = 20
    height, width = golden.tensor("in/pad_shape")[image].tolist()
    batch = golden.tensor("in/img")[image : image + 1, :, :height, :width]
    (found,) = detect(model.eval(), batch, [ground_truth(golden)[image].image_size])
    stored = [golden.tensor(f"{prefix}/{key}") for key in ("boxes", "scores", "labels")]
    pixels, score = difference_of_detections(found, *stored)
    assert pixels < 1e-3
    assert score < 1e-5
