"""Losses of the package in all heads of Co-DETR: weights, targets of queries, any batch."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from brloss_d2.criteria import PredictedIoU, RelativeIoU, SigmoidCriterion
from brloss_d2.errors import InputError
from brloss_d2.losses import GIoULoss, QualityFocalLoss
from brloss_d2.model_zoo import set_loss
from brloss_d2.model_zoo.losses import losses_of
from brloss_d2.projects.co_detr.modeling.custom_queries import CustomQueries
from brloss_d2.projects.co_detr.modeling.query_head import Proposals, QueryPredictions
from brloss_d2.projects.co_detr.modeling.query_losses import QueryTargets, match_queries
from tests.helpers.random_inputs import random_inputs
from tests.projects.co_detr.golden_detector import CLASSES, CONFIGS, small_config

SIZE, QUERIES = (96, 128), 12


def node(leaf: str = "R_50_brs_1x") -> DictConfig:
    return LazyConfig.load(str(CONFIGS / f"co_deformable_detr_{leaf}.py")).model


LOSSES = losses_of(node())


def test_names() -> None:
    assert {"iabce", "psl", "corr", "dr", "tal", "wce", "wfocal", "rs", "brs"} < set(LOSSES)
    with pytest.raises(InputError, match="loss=alrp: this detector has no such loss"):
        set_loss(node(), "alrp")


@pytest.mark.parametrize(("first", "second"), [("brs", "focal"), ("focal", "brs")])
def test_a_leaf_becomes_the_other_one(first: str, second: str) -> None:
    model = node(f"R_50_{first}_1x")
    for loss in ("dr", "rs", "tal", second):
        set_loss(model, loss)
    assert OmegaConf.to_container(model) == OmegaConf.to_container(node(f"R_50_{second}_1x"))


def test_numbers_of_proposals_and_images_stay() -> None:
    model = node()
    model.proposal_generator.post_nms_topk = (128, 128)
    model.query_losses.decoder.images_per_pool = 2
    assert set_loss(model, "rs").roi_heads.box_predictor.criterion.images_per_pool == 2
    assert set_loss(model, "focal").proposal_generator.post_nms_topk == (128, 128)


@pytest.mark.parametrize(
    ("loss", "weight"), [("iabce", 1), ("psl", 6), ("tal", 2), ("corr", 2), ("dr", 2), ("wce", 2)]
)
def test_weights_of_queries(loss: str, weight: float) -> None:
    """Of class, L1 and GIoU in all."""
    queries = set_loss(node(), loss).query_losses
    for site in ("decoder", "encoder", "custom"):
        boxes = {k: queries.weight * w for k, w in queries[site].box_weight.items()}
        assert queries.weight == weight
        assert boxes == pytest.approx({"loss_l1": 5, "loss_giou": 2})
    assert queries.matcher.position_power == (0.5 if loss == "psl" else 0)
    if loss == "corr":  # as published for the stages of Sparse R-CNN
        assert queries.weight * queries.decoder.correlation.weight == pytest.approx(0.3)


def random_queries(seed: int, images: int = 2) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, QUERIES, CLASSES, generator=g) - 2
    boxes = torch.rand(images, QUERIES, 4, generator=g) * 0.4 + 0.2
    return logits.requires_grad_(), boxes.requires_grad_()


@pytest.mark.parametrize("loss", LOSSES)
def test_queries_of_any_batch(loss: str) -> None:
    query_losses = instantiate(set_loss(node(), loss).query_losses)
    keys = set()
    for counts in ((3, 2), (0, 1), (0, 0)):
        batch = random_inputs(*counts, num_classes=CLASSES, size=SIZE)
        objects = [x["instances"] for x in batch]
        logits, boxes = random_queries(0)
        decoded = QueryPredictions(
            logits.expand(2, -1, -1, -1), boxes.expand(2, -1, -1, -1), logits
        )
        labels = torch.tensor([[CLASSES] * QUERIES, [-1] * QUERIES])
        gt_boxes = torch.zeros(2, QUERIES, 4)
        for i, x in enumerate(objects):  # every object twice
            twice = torch.arange(2 * len(x)) // 2
            labels[i, : len(twice)] = x.gt_classes[twice]
            gt_boxes[i, : len(twice)] = x.gt_boxes.tensor[twice]
        positive = ((labels >= 0) & (labels < CLASSES)).flatten().nonzero().squeeze(1)
        custom = CustomQueries(boxes.detach(), labels, gt_boxes, positive)
        losses = {
            **query_losses.decoder_losses(decoded, objects),
            **query_losses.proposal_losses(Proposals(logits, boxes, None, None), objects),
            **query_losses.custom_losses(decoded, custom, objects, "roi"),
        }
        gradients = torch.autograd.grad(sum(losses.values()), (logits, boxes))
        assert all(x.isfinite().all() for x in (*losses.values(), *gradients))
        assert gradients[0].any() == (counts != (0, 0) or "loss_cls_proposals" in losses)
        keys.add(frozenset(losses))
    assert len(keys) == 1


@pytest.mark.parametrize("loss", ["iabce", "wfocal"])
def test_one_step_of_the_detector(loss: str) -> None:
    model = small_config("focal")
    set_loss(model, loss)
    model = instantiate(model).train()
    with EventStorage():
        losses = model(random_inputs(3, 0, num_classes=CLASSES))
    sum(losses.values()).backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert [n for n, p in trained if p.grad is None or not p.grad.isfinite().all()] == []


def test_scores_start_at_one_half_for_dr_loss() -> None:
    model = small_config("focal")
    heads = instantiate(set_loss(model, "dr"))
    biases = [heads.query_head.class_branches[0].bias, heads.dense_head.head.cls_logits.bias]
    assert all((bias == 0).all() for bias in biases)
    biases = instantiate(set_loss(model, "focal")).query_head.class_branches[0].bias
    torch.testing.assert_close(biases.sigmoid(), torch.full((CLASSES,), 0.01))


def test_weights_of_the_classes_are_not_for_proposals() -> None:
    """There all objects are of one class."""
    queries = instantiate(set_loss(node(), "wce").query_losses)
    assert type(queries.decoder.cls_loss).__name__ == "ClassWeightedLoss"
    assert type(queries.encoder.cls_loss).__name__ == "BinaryCrossEntropyLoss"


def matched(boxes: Tensor):
    """One object in each of two images, of 3 x 3 pixels in 1000 x 1000, and a query next to it."""
    centers = torch.tensor([[[0.5, 0.5, 0.003, 0.003]], [[0.2, 0.2, 0.003, 0.003]]])
    pixels = torch.cat([centers[..., :2] - centers[..., 2:] / 2] * 2, -1)
    pixels[..., 2:] += centers[..., 2:]
    labels = torch.zeros(2, 1, dtype=torch.long)
    sizes = [(1000, 1000)] * 2
    targets = QueryTargets.of_all_layers(labels, 1000 * pixels, torch.arange(2))
    return match_queries(torch.zeros(1, 2, 1, 1), (centers + boxes)[None], targets, sizes)


def test_the_iou_of_tiny_boxes_is_not_rounded_down() -> None:
    torch.testing.assert_close(
        PredictedIoU()(matched(torch.zeros(4))), torch.ones(2), rtol=0, atol=1e-3
    )
    moved = matched(torch.tensor([0.0015, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(PredictedIoU()(moved), torch.full((2,), 1 / 3), rtol=0, atol=1e-3)
    torch.testing.assert_close(RelativeIoU()(moved), torch.ones(2), rtol=0, atol=1e-6)


def test_task_alignment_of_one_query_per_object_is_its_iou() -> None:
    criterion = instantiate(set_loss(node(), "tal").query_losses.decoder)
    logits, boxes = (x.detach() for x in random_queries(1, images=1))
    boxes[0, 4] = torch.tensor([0.32, 0.47, 0.3, 0.5])
    truth = Instances(SIZE, gt_boxes=Boxes(torch.tensor([[20.0, 20, 60, 70]])))
    labels = torch.full((1, QUERIES), CLASSES)
    labels[0, 4] = 2
    gt_boxes = truth.gt_boxes.tensor.expand(1, QUERIES, 4)
    targets = QueryTargets.of_all_layers(labels, gt_boxes, torch.tensor([4]))
    (rows,) = match_queries(logits[None], boxes[None], targets, [SIZE]).layers()
    plain = SigmoidCriterion(QualityFocalLoss(), GIoULoss())(rows).losses["loss_cls"]
    iou = PredictedIoU()(rows).sum()
    assert 0.5 < iou < 1
    found = criterion(rows).losses["loss_cls"]
    torch.testing.assert_close(found, plain / iou, rtol=1e-4, atol=0)
