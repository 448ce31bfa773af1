"""SOLOv2 as a detector: from images to losses and masks, and all that may be missing."""

from functools import partial

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from brloss_d2.criteria import MaskCriterion, SoftmaxCriterion
from brloss_d2.errors import InputError
from brloss_d2.losses import ConstantBalancer, MaskCrossEntropyLoss, SmoothL1Loss
from brloss_d2.modeling import GridAssigner, GridPostprocessor, MatrixNMS, SOLOv2
from brloss_d2.modeling.instance import solov2 as solov2_module
from tests.helpers.small_solov2 import CLASSES, build_solov2

SIZE = (93, 120)
RANKING = {"loss_rank", "loss_sort", "loss_mask"}


def objects(boxes: list[list[int]], classes: list[int] | None = None) -> Instances:
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return Instances(
        SIZE,
        gt_boxes=Boxes(torch.tensor(boxes).float().view(-1, 4)),
        gt_classes=torch.tensor(classes or [0] * len(boxes), dtype=torch.long),
        gt_masks=BitMasks(masks),
    )


def without_masks(size: tuple[int, int] = SIZE) -> Instances:
    """An image without objects, as detectron2's mapper makes it."""
    found = Instances(size, gt_boxes=Boxes(torch.zeros(0, 4)))
    found.gt_classes = torch.zeros(0, dtype=torch.long)
    return found


def batch(*images: Instances) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": 255 * torch.rand(3, *x.image_size, generator=generator), "instances": x}
        for x in images
    ]


SOME = partial(objects, [[10, 10, 40, 50], [60, 20, 100, 80]], [1, 4])
VANISHING = partial(objects, [[4, 10, 5, 60], [8, 10, 9, 60]])
MANY = partial(objects, [[x, y, x + 9, y + 8] for x in range(0, 100, 5) for y in range(0, 75, 5)])


def train(model: SOLOv2, inputs: list[dict]) -> dict[str, Tensor]:
    """Run a step; assert finite losses, and that every trainable parameter gets a gradient."""
    losses = model(inputs)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert all(value.isfinite() for value in losses.values())
    return losses


@pytest.mark.parametrize("loss", ["rs", "ap", "focal", "dr", "tal", "corr"])
@pytest.mark.parametrize(
    "images",
    [
        (SOME(), without_masks()),
        (objects([]),),
        (without_masks(),),
        (VANISHING(),),
        (MANY(),),
        (SOME()[:1], VANISHING(), without_masks((64, 50))),
    ],
    ids=["one_empty", "empty", "without_masks", "vanishing", "300", "three_sizes"],
)
def test_training(loss, images):
    """Where the published code crashes as well: no objects, none of a level with a mask."""
    losses = train(build_solov2(loss), batch(*images))
    if loss == "rs":
        assert losses.keys() == RANKING
    if not any(len(x) for x in images):
        assert losses["loss_mask"] == 0


def test_objects_with_empty_masks_are_background():
    """The published code crashes if a level has no others."""
    found = SOME()
    found.gt_masks.tensor[:] = False
    model, empty = build_solov2("rs"), without_masks()
    assert model(batch(found)) == model(batch(empty))


def test_an_object_that_vanishes_is_ranked_last():
    """Its mask has no pixel at a quarter of the size: Dice coefficient 0, still a positive."""
    model, seen = build_solov2("rs"), []
    model.criterion.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    losses = model(batch(VANISHING()))
    assert len(seen[0].foreground) > 0
    assert (seen[0].quality == 0).all()
    assert losses["loss_mask"] > 0


def test_one_class():
    model = build_solov2("rs", num_classes=1)
    assert train(model, batch(SOME()[:1])).keys() == RANKING


def test_pools_of_images():
    """Each image alone: the mean of what they give one by one."""
    model = build_solov2("rs")
    inputs = batch(SOME(), SOME()[1:])
    model.criterion.images_per_pool = model.mask_criterion.images_per_pool = 1
    together = model(inputs)
    alone = [model([x]) for x in inputs]
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2)


def test_many_masks_are_computed_in_parts(monkeypatch):
    """With the same losses and gradients."""
    model, inputs, found = build_solov2("rs"), batch(SOME(), MANY()), []
    for limit in (10_000, 7):
        monkeypatch.setattr(solov2_module, "_MAX_MASKS_KEPT", limit)
        model.zero_grad()
        losses = train(model, inputs)
        found.append((losses, [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    (whole, gradients), (parts, others) = found
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(gradients, others, rtol=1e-4, atol=1e-6)


def test_every_mask_is_compared_once():
    """For the quality of its cell and for its loss together."""
    model, compared = build_solov2("rs"), []
    model.mask_criterion.mask_loss.register_forward_hook(
        lambda _, inputs, output: compared.append(len(output))
    )
    inputs = batch(SOME(), without_masks(), SOME()[1:])
    model(inputs)
    assert len(compared) == 3
    assert compared[0] > compared[2] > compared[1] == 0


def test_other_mask_losses_rank_by_dice():
    """The quality is the Dice coefficient whatever the masks are trained with."""
    model, seen = build_solov2("rs"), []
    model.criterion.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].quality))
    model(batch(SOME()))
    model.mask_criterion = MaskCriterion(MaskCrossEntropyLoss(), ConstantBalancer(1.0))
    losses = train(model, batch(SOME()))
    torch.testing.assert_close(seen[0], seen[1])
    assert losses["loss_mask"] > 0


def test_autocast():
    model = build_solov2("rs")
    exact = model(batch(SOME()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch(SOME()))
    sum(losses.values()).backward()
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert model.eval()(batch(SOME()))[0]["instances"].scores.dtype == torch.float32


def test_masks_are_needed():
    found = SOME()
    found.remove("gt_masks")
    with pytest.raises(InputError, match="instance_mask_format"):
        build_solov2("rs")(batch(found))


def test_criteria_that_do_not_fit():
    model = build_solov2("rs")
    parts = {
        name: getattr(model, name)
        for name in ("backbone", "head", "mask_head", "assigner", "mask_criterion", "postprocessor")
    }
    statistics = {"pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}
    with pytest.raises(InputError, match="needs a background class"):
        SOLOv2(**parts, **statistics, num_classes=5, criterion=SoftmaxCriterion(SmoothL1Loss()))
    with pytest.raises(InputError, match="trains on all masks"):
        limited = MaskCriterion(MaskCrossEntropyLoss(), ConstantBalancer(1.0), max_masks=10)
        SOLOv2(
            **{**parts, "mask_criterion": limited},
            **statistics,
            num_classes=5,
            criterion=model.criterion,
        )
    other = GridAssigner([12, 10, 8, 6, 5], [(1, 9)] * 5)
    with pytest.raises(InputError, match="give both the same"):
        SOLOv2(
            **{**parts, "assigner": other}, **statistics, num_classes=5, criterion=model.criterion
        )
    areas = GridPostprocessor(MatrixNMS(), min_areas=[1, 2])
    with pytest.raises(InputError, match="has 2 numbers for 5 levels"):
        SOLOv2(
            **{**parts, "postprocessor": areas},
            **statistics,
            num_classes=5,
            criterion=model.criterion,
        )
    with pytest.raises(ValueError, match="max_candidates must be"):
        GridPostprocessor(MatrixNMS(), max_candidates=0)
    with pytest.raises(ValueError, match="mask_criterion must be of type MaskCriterion"):
        parts["mask_criterion"] = model.criterion
        SOLOv2(**parts, **statistics, num_classes=5, criterion=model.criterion)


@torch.no_grad()
def test_detections_have_the_original_size():
    model = build_solov2("rs").eval()
    model.postprocessor.score_thresh = model.postprocessor.final_thresh = 0.0
    model.head.cls_logits.bias.fill_(0.0)
    first, second = batch(SOME(), without_masks((64, 50)))
    first |= {"height": 186, "width": 230}
    found = [x["instances"] for x in model([first, second])]
    assert [x.image_size for x in found] == [(186, 230), (64, 50)]
    for x in found:
        assert 0 < len(x) <= 100
        assert x.pred_masks.shape == (len(x), *x.image_size)
        assert x.pred_masks.dtype == torch.bool
        assert x.pred_masks.flatten(1).any(1).all()
        expected = BitMasks(x.pred_masks).get_bounding_boxes().tensor
        assert torch.equal(x.pred_boxes.tensor, expected)
        assert torch.equal(x.scores, x.scores.sort(descending=True)[0])
        assert x.pred_classes.max() < CLASSES


@torch.no_grad()
def test_nothing_found():
    """Nothing exceeds the scores of the start of training."""
    (found,) = build_solov2("rs").eval()(batch(SOME()))
    assert len(found["instances"]) == 0
    assert found["instances"].pred_masks.shape == (0, *SIZE)
    assert found["instances"].pred_boxes.tensor.shape == (0, 4)


def level(rows: list[tuple[float, float]]) -> Tensor:
    """(2, 2, 2) scores of two classes from those of the cells in order."""
    return torch.tensor(rows).T.view(2, 2, 2)


SCORES = level([(0.9, 0.1), (0.05, 0.6), (0.3, 0.0), (0.0, 0.21)])
KERNELS = torch.tensor([[[1.0, -1.0], [2.0, 0.5]]])
FEATURES = torch.linspace(-3, 3, 64).view(1, 8, 8)
SIZES = {"image_size": (30, 28), "output_size": (15, 14)}


def test_the_steps_of_detection():
    """A worked example: one level of four cells and two classes."""
    postprocessor = GridPostprocessor(MatrixNMS(), min_areas=[8])
    found = postprocessor([SCORES], [KERNELS], FEATURES, **SIZES)
    assert found.pred_classes.tolist() == [0, 1, 1]
    expected = torch.tensor([0.709024, 0.472683, 0.141641])
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=5e-7)
    assert found.pred_masks.sum((1, 2)).tolist() == [96, 114, 96]


@pytest.mark.parametrize(
    "options",
    [{"min_areas": [32]}, {"score_thresh": 0.9}, {"final_thresh": 0.8}, {"mask_thresh": 1.0}],
    ids=lambda options: next(iter(options)),
)
def test_nothing_is_left_at_some_step(options):
    """The published code returns None."""
    postprocessor = GridPostprocessor(MatrixNMS(), **{"min_areas": [8], **options})
    found = postprocessor([SCORES], [KERNELS], FEATURES, **SIZES)
    assert len(found) == 0
    assert found.pred_masks.shape == (0, 15, 14)


def test_masks_in_the_padding_are_no_detections():
    features = torch.full((1, 8, 8), -3.0)
    features[:, :, 7] = 3.0  # the last four columns of 32
    postprocessor = GridPostprocessor(MatrixNMS(), min_areas=[4])
    inside = postprocessor([SCORES], [KERNELS], features, image_size=(30, 32), output_size=(30, 32))
    cut = postprocessor([SCORES], [KERNELS], features, image_size=(30, 26), output_size=(30, 26))
    assert len(inside) > len(cut)
    assert cut.pred_masks.flatten(1).any(1).all()
