"""Whole detector on every kind of batch, with both kinds of losses."""

import copy

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import nn

from brloss_d2.criteria import SoftmaxCriterion
from brloss_d2.errors import InputError
from brloss_d2.losses import GIoULoss
from brloss_d2.projects.co_detr.modeling.co_detr import CoDETR
from brloss_d2.projects.co_detr.modeling.query_head import QueryPredictions
from brloss_d2.projects.co_detr.modeling.query_losses import QueryLosses
from brloss_d2.projects.co_detr.modeling.swin import Swin
from brloss_d2.utils.config_nodes import walk_nodes
from tests.helpers.golden_models import relative
from tests.helpers.programs import Programs
from tests.helpers.random_inputs import random_inputs
from tests.helpers.two_processes import assert_processes_agree
from tests.projects.co_detr.golden_detector import CLASSES, CONFIGS, small_config, small_detector


def num_terms(loss: str, layers: int) -> int:
    """Number of losses of proposals, decoder, two sets of customized queries and three heads."""
    sets = 1 + layers + 2 * layers
    return {"brs": 4 * sets + 9, "focal": 3 * sets + 7}[loss]


def inputs(*objects: int, **options) -> list[dict]:
    return random_inputs(*objects, num_classes=CLASSES, **options)


def losses_of(model, batch: list[dict]) -> dict[str, torch.Tensor]:
    with EventStorage():
        return model.train()(batch)


@pytest.fixture(params=["brs", "focal"])
def loss(request) -> str:
    return request.param


def test_one_step_of_any_batch(loss):
    model, keys = small_detector(loss), set()
    for objects in ((3, 2), (0, 2), (0, 0)):
        model.zero_grad()
        losses = losses_of(model, inputs(*objects))
        sum(losses.values()).backward()
        keys.add(frozenset(losses))
        assert all(v.shape == () and v.isfinite() for v in losses.values())
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert [n for n, p in trained.items() if p.grad is None] == []
        assert all(p.grad.isfinite().all() for p in trained.values())
        if objects == (0, 0) and loss == "brs":
            assert all(v == 0 for v in losses.values())
            assert all((p.grad == 0).all() for p in trained.values())
    assert len(keys) == 1  # the same names whatever the batch
    assert len(keys.pop()) == num_terms(loss, layers=3)


@pytest.mark.parametrize(("loss", "count"), [("brs", 85), ("focal", 64)])
def test_number_of_terms_of_the_published_model(loss, count):
    cfg = small_config(loss)
    cfg.query_head.decoder.num_layers = 6
    assert len(losses_of(instantiate(cfg), inputs(1, 1))) == num_terms(loss, layers=6) == count


def test_rs_and_brs_agree_without_a_ramp():
    """At delta 0, buckets lose nothing (theorem 1 of the paper on BRS)."""
    found = []
    for loss in ("rs", "brs"):
        cfg = small_config(loss)
        for node in walk_nodes(cfg):
            if "delta" in node:
                node.delta = 0.0
        torch.manual_seed(0)
        model = instantiate(cfg)
        torch.manual_seed(5)
        losses = losses_of(model, inputs(3, 2))
        sum(losses.values()).backward()
        found.append((losses, {n: p.grad for n, p in model.named_parameters()}))
    (rs, rs_grads), (brs, brs_grads) = found
    assert rs.keys() == brs.keys() and len(rs) == num_terms("brs", layers=3)
    torch.testing.assert_close(rs, brs, rtol=1e-5, atol=1e-7)
    assert rs_grads.keys() == brs_grads.keys()
    for name, grad in rs_grads.items():
        if grad is not None:
            assert relative(brs_grads[name], grad) < 1e-5, name


def test_swin_backbone():
    cfg = small_config("brs")
    cfg.backbone = L(Swin)(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)
    cfg.neck.update(input_shapes=[16, 32, 64], in_features=["p1", "p2", "p3"])
    model = instantiate(cfg)
    for objects in ((2, 0), (0, 0)):
        model.zero_grad()
        sum(losses_of(model, inputs(*objects)).values()).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_learns_the_objects_of_two_images(loss):
    torch.manual_seed(0)
    model = small_detector(loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batch = inputs(2, 1)
    totals = []
    for _ in range(30):
        losses = losses_of(model, batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        totals.append(sum(losses.values()).item())
    assert totals[-1] < 0.5 * totals[0]


def test_a_process_without_objects_keeps_up(programs: Programs, loss, tmp_path):
    leaf = CONFIGS / f"quick/co_deformable_detr_R_18_{loss}_300it.py"
    assert_processes_agree(programs, leaf, ["model.query_head.num_classes=2"], tmp_path)


def test_images_of_different_sizes(loss):
    batch = inputs(2) + inputs(1, seed=1, size=(70, 90))
    losses = losses_of(small_detector(loss), batch)
    assert all(v.isfinite() for v in losses.values())


def test_fewer_cells_than_queries(loss):
    model = small_detector(loss)
    batch = inputs(1, 1, largest=20.0, size=(24, 24))
    losses = losses_of(model, batch)
    assert all(v.isfinite() for v in losses.values())
    with torch.no_grad():
        found, _ = model.eval()(batch)
    assert len(found["instances"]) <= model.max_detections


def test_the_same_seed_draws_the_same_queries(loss):
    results = []
    for _ in range(2):
        model = small_detector(loss)
        torch.manual_seed(5)
        results.append(losses_of(model, inputs(3, 2)))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_detections_need_no_auxiliary_head(loss):
    model = small_detector(loss).eval()
    alone = copy.deepcopy(model)
    del alone.proposal_generator, alone.roi_heads, alone.dense_head
    del alone.query_head.custom, alone.query_head.downsample, alone.query_losses
    with torch.no_grad():
        for ours, theirs in zip(model(inputs(1, 1)), alone(inputs(1, 1)), strict=True):
            first, second = ours["instances"], theirs["instances"]
            assert torch.equal(first.pred_boxes.tensor, second.pred_boxes.tensor)
            assert torch.equal(first.scores, second.scores)


def test_an_image_is_detected_alone_as_in_a_batch(loss):
    model = small_detector(loss).eval()
    batch = inputs(1, 1)
    with torch.no_grad():
        together = model(batch)
        alone = [model([x])[0] for x in batch]
    for ours, theirs in zip(together, alone, strict=True):
        first, second = ours["instances"], theirs["instances"]
        torch.testing.assert_close(first.scores, second.scores, rtol=1e-4, atol=1e-6)
        assert len(first) == 100
        inside = first.pred_boxes.inside_box((96, 128))
        assert inside.all()


def test_detections_are_the_best_pairs_of_query_and_class():
    model = small_detector("brs").eval()
    model.max_detections = 7
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 30, CLASSES, generator=g)
    boxes = torch.rand(1, 1, 30, 4, generator=g)
    predictions = QueryPredictions(logits, boxes, hidden=logits)
    (found,) = model.inference(predictions, [(96, 128)])
    pairs = sorted(
        ((logits[0, 0, q, c].sigmoid().item(), q, c) for q in range(30) for c in range(CLASSES)),
        reverse=True,
    )[:7]
    torch.testing.assert_close(found.scores, torch.tensor([p[0] for p in pairs]))
    assert found.pred_classes.tolist() == [p[2] for p in pairs]
    cx, cy, w, h = boxes[0, 0, pairs[0][1]].tolist()
    expected = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).clamp(0, 1)
    expected = expected * torch.tensor([128, 96, 128, 96])
    torch.testing.assert_close(found.pred_boxes.tensor[0], expected)


def test_queries_have_no_background_class():
    parts = dict.fromkeys(("decoder", "encoder"), small_detector("brs").query_losses.decoder)
    with pytest.raises(InputError, match="SoftmaxCriterion needs a background class"):
        QueryLosses(matcher=None, custom=SoftmaxCriterion(GIoULoss()), **parts)


def test_unbalanced_values_are_logged():
    with EventStorage() as storage:
        small_detector("brs").train()(inputs(3, 2))
        latest = storage.latest()
    for site in ("decoder", "proposals", "roi_queries", "dense_queries"):
        assert latest[f"{site}/l1_unbalanced"][0] > 0
        assert latest[f"{site}/num_positives"][0] > 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("loss_rank_layer5", "class"),
        ("loss_cls_proposals", "class"),
        ("loss_giou_layer0", "box"),
        ("loss_l1_proposals", "box"),
        ("loss_rank", "auxiliary"),
        ("loss_rpn_box_reg", "auxiliary"),
        ("loss_l1_dense_layer1", "auxiliary"),
        ("loss_rank_roi_layer0", "auxiliary"),
        ("loss_giou_denoising_layer2", "denoising"),
    ],
)
def test_kinds_of_losses(name: str, kind: str) -> None:
    assert CoDETR.kind_of_loss(name) == kind
