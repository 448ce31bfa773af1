"""YOLACT with every loss, on batches that the published code does not survive, and inference."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor

from brloss_d2.checkpoint import to_mmdetection
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import list_criteria
from brloss_d2.modeling import YOLACT
from brloss_d2.modeling.instance import yolact
from brloss_d2.modeling.instance.yolact import at_original_size
from tests.helpers.configs import build_without_weights
from tests.helpers.random_inputs import random_inputs
from tests.helpers.small_yolact import CLASSES, build, full_config, small_config


def inputs(*objects: int, **options) -> list[dict]:
    """Random images whose objects fill their boxes; those without objects have no masks."""
    batch = random_inputs(*objects, **{"num_classes": CLASSES, **options})
    for image in batch:
        found = image["instances"]
        if len(found):
            found.gt_masks = filled(found.gt_boxes.tensor, found.image_size)
    return batch


def filled(boxes: Tensor, size: tuple[int, int]) -> BitMasks:
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    return BitMasks((x >= x1) & (x < x2) & (y >= y1) & (y < y2))


def train(model: YOLACT, batch: list[dict]) -> dict[str, Tensor]:
    """Run a step; all losses and gradients are finite, and every parameter has a gradient."""
    model.zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    return losses


@pytest.mark.parametrize("loss", list_criteria("yolact"))
def test_one_step_of_any_batch(loss):
    model = build(loss)
    keys = [frozenset(train(model, inputs(*objects))) for objects in ((3, 2), (0, 2), (0, 0))]
    assert len(set(keys)) == 1
    assert "loss_mask" in keys[0]
    assert ("loss_semantic" in keys[0]) == (loss == "ce")


def test_nothing_to_learn_from_masks_and_boxes_without_objects():
    losses = train(build("rs"), inputs(0, 0))
    assert losses.keys() == {"loss_rank", "loss_sort", "loss_box_reg", "loss_mask"}
    assert not any(losses.values())


@pytest.mark.parametrize("loss", ["rs", "ce"])
@pytest.mark.parametrize(
    ("objects", "options"),
    [
        ((0, 0, 0, 1), {}),  # fewer positives than the index of their image
        ((300,), {"largest": 20.0}),
        ((1, 40), {"largest": 1.5}),
        ((2, 1), {"num_classes": 1}),
    ],
    ids=["last_image", "many", "tiny", "one_class"],
)
def test_hard_batches(loss, objects, options):
    cfg = small_config(loss)
    cfg.num_classes = options.get("num_classes", CLASSES)
    losses = train(instantiate(cfg).train(), inputs(*objects, **options))
    assert losses["loss_mask"] > 0


def test_masks_that_vanish_on_the_map():
    """Targets without a cell: Dice error 1, and still something to learn."""
    batch = inputs(2)
    batch[0]["instances"].gt_masks.tensor[:] = False
    model = build("rs")
    with EventStorage() as storage:
        losses = model(batch)
        assert storage.latest()["mask_head/mask_unbalanced"][0] == 1
    assert losses["loss_mask"].isfinite()


def test_objects_that_no_anchor_overlaps_claim_none():
    """In the published code they claim the first anchor."""
    batch = inputs(2)
    found = batch[0]["instances"]
    found.gt_boxes = Boxes(torch.tensor([[5.0, 5, 5, 30], [2000, 2000, 2010, 2010]]))
    losses = train(build("rs"), batch)
    assert losses["loss_mask"] == losses["loss_rank"] == 0


def test_many_masks_are_computed_again_in_the_backward_pass(monkeypatch):
    model, gradients = build("rs"), []
    for most in (10_000, 3):
        monkeypatch.setattr(yolact, "_MAX_MASKS_KEPT", most)
        losses = train(model, inputs(5, 4))
        gradients.append([losses["loss_mask"].detach(), *(p.grad for p in model.parameters())])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_pools_are_balanced_one_by_one():
    """Two pools of one image each: the mean of what each image gives alone."""
    model = build("rs").eval()  # batch normalization of a batch of two is another one
    model.training = True
    for criterion in (model.criterion, model.mask_criterion):
        criterion.images_per_pool = 1
    batch = inputs(3, 2)
    with EventStorage():
        both, *alone = (model(part) for part in (batch, batch[:1], batch[1:]))
    for name, value in both.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=0)


def test_images_of_several_sizes():
    """Anchors in the padding are ignored; detections have the size of their image."""
    batch = inputs(2, size=(96, 128)) + inputs(2, size=(80, 70))
    model = build("rs")
    train(model, batch)
    with torch.no_grad():
        images = model.preprocess_image(batch)
        features = list(model.backbone(images.tensor).values())
        objects = [image["instances"] for image in batch]
        anchors = model.anchor_generator(features, (96, 128))
        assigned = model.matcher(anchors, model.head(features).dense, objects).assigned
        centers = torch.cat([level.get_centers() for level in anchors])
        padding = (centers[:, 0] >= 70) | (centers[:, 1] >= 80)
        assert (assigned[1][padding] == -2).all()
        assert padding.sum() > 100
        found = [x["instances"] for x in model.eval()(batch)]
    assert [x.image_size for x in found] == [(96, 128), (80, 70)]
    assert found[1].pred_boxes.tensor[:, 0::2].max() <= 70


@pytest.mark.parametrize("loss", ["rs", "ce"])
@torch.no_grad()
def test_inference(loss):
    model = build(loss).eval()
    model.postprocessor.score_thresh = 0.1
    batch = [dict(image, height=50, width=201) for image in inputs(1, 1)]
    for result in model(batch):
        found = result["instances"]
        assert found.image_size == (50, 201)
        assert len(found) == 100
        assert found.pred_masks.shape == (100, 50, 201)
        assert found.pred_masks.dtype == torch.bool
        assert found.pred_classes.max() < CLASSES
        assert (found.scores.diff() <= 0).all()
        right, bottom = found.pred_boxes.tensor[:, 2:].amax(0).tolist()
        assert (right, bottom) <= (201, 50)
        # Masks are cropped to their boxes and 2.5 cells around, of 6.3 x 2.1 pixels.
        boxes = found.pred_masks.any((1, 2)).nonzero().squeeze(1)
        for i in boxes[:10].tolist():
            y, x = found.pred_masks[i].nonzero(as_tuple=True)
            x1, y1, x2, y2 = found.pred_boxes.tensor[i].tolist()
            assert x.min() >= x1 - 16
            assert x.max() <= x2 + 16
            assert y.min() >= y1 - 6
            assert y.max() <= y2 + 6


@torch.no_grad()
def test_nothing_found():
    model = build("rs").eval()
    model.postprocessor.score_thresh = 1.0
    (result,) = model([{"image": torch.zeros(3, 96, 128)}])
    assert len(result["instances"]) == 0
    assert result["instances"].pred_masks.shape == (0, 96, 128)


def test_masks_and_boxes_of_a_padded_image():
    """The left half of a 40 x 20 image, which is a quarter of its canvas of 40 x 40."""
    logits = torch.full((1, 10, 10), -9.0)
    logits[0, :, :2] = 9.0  # half of the 5 columns that are not padding
    logits[0, :, 2] = 0.1
    found = Instances(
        (40, 20),
        pred_boxes=Boxes(torch.tensor([[0.0, 0, 10, 40]])),
        scores=torch.ones(1),
        pred_classes=torch.zeros(1),
        mask_logits=logits,
    )
    moved = at_original_size(found, (40, 40), (80, 60))
    assert moved.pred_boxes.tensor.tolist() == [[0, 0, 30, 80]]
    columns = moved.pred_masks[0].all(0)
    assert torch.equal(columns, moved.pred_masks[0].any(0))
    assert 30 <= columns.sum() <= 36
    assert columns[:30].all()


@pytest.mark.parametrize("masks", ["none", "polygons"])
def test_pixel_masks_are_needed(masks):
    batch = inputs(2)
    found = batch[0]["instances"]
    found.remove("gt_masks")
    if masks == "polygons":
        found.gt_masks = PolygonMasks([[[0, 0, 9, 0, 9, 9]]] * 2)
    with pytest.raises(InputError, match='instance_mask_format="bitmask"'):
        build("rs")(batch)


@pytest.mark.parametrize(("loss", "has_background"), [("rs", True), ("ce", False)])
def test_the_background_belongs_to_the_criterion(loss, has_background):
    cfg = small_config(loss)
    cfg.head.has_background = has_background
    with pytest.raises(InputError, match=f"but model.head.has_background is {has_background}"):
        instantiate(cfg)


def test_as_many_coefficients_as_prototypes():
    cfg = small_config("rs")
    cfg.prototype_net.num_prototypes = 7
    with pytest.raises(InputError, match="has 7 prototypes"):
        instantiate(cfg)


def test_scores_at_the_start():
    assert (build("rs").head.cls_logits.bias == 0).all()
    scores = build("focal").head.cls_logits.bias.sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.01))


@pytest.mark.parametrize(("loss", "size"), [("rs", 35_266_236), ("ce", 35_293_711)])
def test_published_number_of_parameters(loss, size):
    model = build_without_weights(full_config(loss))
    assert sum(p.numel() for p in model.parameters()) == size
    assert all(p.requires_grad for p in model.parameters())
    published = to_mmdetection(model.state_dict(), "yolact")
    assert sum(x.numel() for name, x in published.items() if "running_" not in name) == size
    assert published["bbox_head.conv_coeff.weight"].shape == (3 * 32, 256, 3, 3)
    assert published["mask_head.protonet.10.weight"].shape == (32, 256, 1, 1)
    assert ("segm_head.segm_conv.weight" in published) == (loss == "ce")
