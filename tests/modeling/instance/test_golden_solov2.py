"""SOLOv2 against the published implementation: each step with its stored inputs, and whole."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from brloss_d2.modeling import MatrixNMS
from brloss_d2.modeling.instance.grid_assigner import quarter_masks
from brloss_d2.modeling.instance.grid_head import GridOutputs
from brloss_d2.modeling.instance.grid_postprocessing import masks_of
from brloss_d2.modeling.instance.matrix_nms import points_nms
from brloss_d2.modeling.instance.solov2 import SOLOv2Outputs
from tests.helpers.golden_models import (
    Golden,
    available,
    differences_of_gradients,
    ground_truth,
    load,
    relative,
)
from tests.helpers.small_solov2 import CLASSES, GRIDS, build_solov2

LEVELS = range(5)
CANVAS, QUARTER = (128, 192), (32, 48)
NAMES = available("solov2_rs", "solov2_focal")
# Case of a file, and the criterion: as published, with each Dice value at its own cell, bucketed.
CASES = [
    (name, prefix, loss)
    for name, prefix, loss in (
        ("solov2_rs", "", "rs"),
        ("solov2_rs", "paired/", "rs"),
        ("solov2_rs", "brs/", "brs"),
        ("solov2_focal", "", "focal"),
    )
    if name in NAMES
]


def build(golden: Golden, prefix: str = "", loss: str = ""):
    model = build_solov2(loss or golden.name.partition("_")[2], golden)
    model.assigner.published_order = golden.name == "solov2_rs" and not prefix
    return model


def stored_outputs(golden: Golden) -> SOLOv2Outputs:
    maps = [
        [golden.tensor(f"head/{kind}{level}").requires_grad_() for level in LEVELS]
        for kind in ("cate", "kernel")
    ]
    return SOLOv2Outputs(GridOutputs(*maps), golden.tensor("mask_feat").requires_grad_())


def packed(golden: Golden, key: str) -> Tensor:
    shape = golden.tensor(f"{key}_shape").tolist()
    bits = np.unpackbits(golden.tensor(f"{key}_packed").numpy(), count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape)).bool()


@pytest.fixture(params=NAMES)
def golden(request) -> Golden:
    return load(request.param)


@pytest.mark.parametrize("image", [0, 1])
def test_targets(golden, image):
    model, objects = build_solov2(golden.name.partition("_")[2]), ground_truth(golden)[image]
    targets = model.assigner(objects.gt_boxes.tensor, objects.gt_masks.tensor, CANVAS)
    starts = torch.tensor([0, *(g * g for g in GRIDS)]).cumsum(0)
    level, cell = golden.tensor(f"targets/cells{image}").T
    assert torch.equal(targets.mask_cells, starts[level] + cell)
    assert torch.equal(targets.mask_objects, golden.tensor(f"targets/owner{image}"))
    assert torch.equal(targets.cells[targets.mask_rows], targets.mask_cells)
    labels = torch.full((int(starts[-1]),), -1)
    labels[targets.cells] = objects.gt_classes[targets.owners]
    expected = [golden.tensor(f"targets/cate{image}_{i}").flatten() for i in LEVELS]
    assert torch.equal(labels, torch.cat(expected))


def test_quarter_masks(golden):
    targets = []
    for i, objects in enumerate(ground_truth(golden)):
        masks = golden.tensor(f"in/gt_masks{i}").bool()
        quarter = golden.tensor(f"targets/quarter_masks{i}").bool()
        assert torch.equal(quarter_masks(masks, quarter.shape[1:]), quarter)
        height, width = objects.image_size  # without the padding
        assert torch.equal(quarter_masks(masks[:, :height, :width], quarter.shape[1:]), quarter)
        assigner = build_solov2(golden.name.partition("_")[2]).assigner
        owners = assigner(objects.gt_boxes.tensor, masks, CANVAS).mask_objects
        targets.append((quarter_masks(masks, QUARTER)[owners], owners))
    level = torch.cat([golden.tensor(f"targets/cells{i}")[:, 0] for i in range(2)])
    order = level.argsort(stable=True)  # the file has level before image
    stored = packed(golden, "targets/masks")
    assert torch.equal(torch.cat([x for x, _ in targets])[order], stored)


def assert_losses(golden: Golden, losses: dict[str, Tensor], prefix: str = "") -> None:
    expected = {key.rpartition("/")[2] for key in golden.keys(f"{prefix}loss/")}
    assert {*losses, "total"} == expected
    for name, value in {**losses, "total": sum(losses.values())}.items():
        stored = golden.tensor(f"{prefix}loss/{name}")
        torch.testing.assert_close(value.detach(), stored, rtol=1e-5, atol=0, msg=name)


def assert_output_gradients(golden: Golden, outputs: SOLOv2Outputs, prefix: str = "") -> None:
    for kind, maps in zip(("cate", "kernel"), outputs.grid, strict=True):
        for level in LEVELS:
            if (key := f"{prefix}gradout/{kind}{level}") in golden:
                assert relative(maps[level].grad, golden.tensor(key)) < 1e-4, key
    gradient = outputs.mask_features.grad
    if f"{prefix}gradout/mask_feat" in golden:
        expected = golden.tensor(f"{prefix}gradout/mask_feat")
        assert relative(gradient[:, :4], expected) < 1e-4
    if (key := f"{prefix}gradout_norm/mask_feat") in golden:
        assert relative(gradient.flatten(2).norm(dim=2), golden.tensor(key)) < 1e-4


@pytest.mark.parametrize(("name", "prefix", "loss"), CASES)
def test_losses_and_gradients(name, prefix, loss):
    golden = load(name)
    outputs = stored_outputs(golden)
    losses = build(golden, prefix, loss).losses(outputs, ground_truth(golden))
    assert_losses(golden, losses, prefix)
    sum(losses.values()).backward()
    assert_output_gradients(golden, outputs, prefix)


@pytest.mark.parametrize(("name", "prefix", "loss"), CASES)
def test_whole_training_step(name, prefix, loss):
    golden = load(name)
    model = build(golden, prefix, loss)
    features = model.backbone(golden.tensor("in/img"))
    for level, x in enumerate(features.values()):
        expected = golden.tensor(f"fpn/{level}")
        torch.testing.assert_close(x[:, :4], expected, rtol=0, atol=5e-5)
    outputs = model.outputs(golden.tensor("in/img"))
    for kind, maps in zip(("cate", "kernel"), outputs.grid, strict=True):
        for level, x in enumerate(maps):
            expected = golden.tensor(f"head/{kind}{level}")
            torch.testing.assert_close(x, expected, rtol=0, atol=5e-5)
            x.retain_grad()
    expected = golden.tensor("mask_feat")
    torch.testing.assert_close(outputs.mask_features, expected, rtol=0, atol=1e-4)
    outputs.mask_features.retain_grad()
    losses = model.losses(outputs, ground_truth(golden))
    assert_losses(golden, losses, prefix)
    sum(losses.values()).backward()
    assert_output_gradients(golden, outputs, prefix)
    by_gradient, by_norm = differences_of_gradients(model, golden, "solov2", prefix)
    assert len(by_norm) > 50
    assert by_gradient
    assert max(by_gradient.values()) < 1e-4
    assert max(by_norm.values()) < 1e-4


@pytest.mark.parametrize(("name", "prefix", "loss"), CASES[:2])
def test_quality_and_weights(name, prefix, loss):
    """What each cell is ranked by, and what its mask counts."""
    golden = load(name)
    model = build(golden, prefix, loss)
    seen = []
    model.criterion.register_forward_hook(lambda _, matched, output: seen.append((matched, output)))
    model.losses(stored_outputs(golden), ground_truth(golden))
    [((matched,), output)] = seen
    targets = torch.zeros_like(matched.logits)
    targets[matched.foreground, matched.labels[matched.foreground]] = matched.quality
    sizes = [g * g for g in GRIDS]
    by_level = [x.flatten() for x in targets.view(2, -1, CLASSES).split(sizes, 1)]
    expected = golden.tensor(f"{prefix}head/rank_targets")
    torch.testing.assert_close(torch.cat(by_level), expected, rtol=1e-5, atol=1e-6)
    order = (matched.levels * 2 + matched.images).argsort(stable=True)
    weights = golden.tensor(f"{prefix}mask/weights")
    torch.testing.assert_close(output.box_weights[order], weights, rtol=1e-5, atol=0)


def detect(model, golden: Golden, image: int) -> Instances:
    """Run the detector on the raw image, on its own, in the stored original size."""
    model.pixel_mean.zero_()
    model.pixel_std.fill_(1.0)
    height, width = golden.tensor("in/img_shape")[image].tolist()
    pixels = golden.tensor("in/img")[image, :, :height, :width]
    original = golden.tensor("in/ori_shape")[image].tolist()
    inputs = {"image": pixels, "height": original[0], "width": original[1]}
    with torch.no_grad():
        return model.eval()([inputs])[0]["instances"]


@pytest.mark.parametrize("name", ["test0", "test1", "test0_small", "test0_linear"])
def test_detections(golden, name):
    model = build(golden)
    if name.endswith("small"):
        model.postprocessor.max_candidates = 20
        rs = golden.name == "solov2_rs"
        model.postprocessor.score_thresh = 0.5 if rs else 0.25
        model.postprocessor.final_thresh = 0.3 if rs else 0.1
        model.postprocessor.max_detections = 8
    if name.endswith("linear"):
        model.postprocessor.suppress = MatrixNMS(kernel="linear")
    found = detect(model, golden, int(name[4]))
    assert torch.equal(found.pred_classes, golden.tensor(f"{name}/labels"))
    torch.testing.assert_close(found.scores, golden.tensor(f"{name}/scores"), rtol=0, atol=1e-6)
    if not name.endswith("linear"):  # stored without masks
        assert torch.equal(found.pred_masks, packed(golden, f"{name}/masks"))
        assert torch.equal(found.pred_boxes.tensor, mask_boxes_of(found.pred_masks))


def mask_boxes_of(masks: Tensor) -> Tensor:
    return BitMasks(masks).get_bounding_boxes().tensor


@torch.no_grad()
def test_suppression(golden):
    """Points-NMS and both kernels of Matrix NMS, from the stored outputs of the network."""
    model = build(golden)
    logits, kernels = (
        [golden.tensor(f"test0/{kind}{level}")[0] for level in LEVELS]
        for kind in ("cate", "kernel")
    )
    scores = [points_nms(x.sigmoid()) for x in logits]
    for level in LEVELS:
        expected = golden.tensor(f"test0/cate_scores{level}")[0].movedim(-1, 0)
        torch.testing.assert_close(scores[level], expected, rtol=0, atol=1e-6)
    features = golden.tensor("test0/mask_feat")[0]
    found = model.postprocessor.candidates(scores, kernels, features)
    assert torch.equal(found.pred_classes, golden.tensor("test0/nms_labels"))
    expected = golden.tensor("test0/nms_scores_in")
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=1e-6)
    masks = masks_of(found.kernels, features) > 0.5
    assert torch.equal(masks.sum((1, 2)), golden.tensor("test0/nms_areas"))
    for kernel, name in (("gaussian", "test0"), ("linear", "test0_linear")):
        lowered = MatrixNMS(kernel=kernel)(masks, found.pred_classes, found.scores)
        expected = golden.tensor(f"{name}/nms_scores_out")
        torch.testing.assert_close(lowered, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("empty", [(1,), (0, 1)])
def test_images_without_objects(golden, empty):
    """The published code crashes; here they train as background, all as zeros."""
    model = build(golden, "paired/")
    assert "IndexError" in golden.text("nogt_all/crash" if len(empty) == 2 else "nogt1/crash")
    losses = model.losses(model.outputs(golden.tensor("in/img")), ground_truth(golden, empty))
    assert losses.keys() == {key[5:] for key in golden.keys("loss/loss_")}
    assert all(value.isfinite() for value in losses.values())
    assert losses["loss_mask"] == 0 if len(empty) == 2 else losses["loss_mask"] > 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
