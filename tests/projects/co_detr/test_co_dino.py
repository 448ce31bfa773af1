"""Whole Co-DINO on every kind of batch, with both kinds of losses."""

import copy

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.events import EventStorage
from torch import nn

from brloss_d2.errors import InputError
from brloss_d2.model_zoo import set_loss
from brloss_d2.model_zoo.losses import losses_of
from brloss_d2.projects.co_detr.layers.geometry import FeatureGeometry
from brloss_d2.projects.co_detr.modeling.decoder import Queries
from brloss_d2.projects.co_detr.modeling.query_head import QueryPredictions
from tests.helpers.configs import build_without_weights
from tests.helpers.programs import Programs
from tests.helpers.random_inputs import random_inputs
from tests.helpers.two_processes import assert_processes_agree
from tests.projects.co_detr.golden_detector import CLASSES, CONFIGS
from tests.projects.co_detr.golden_dino import small_config, small_detector


def inputs(*objects: int, **options) -> list[dict]:
    return random_inputs(*objects, num_classes=CLASSES, **options)


def losses_of_step(model, batch: list[dict]) -> dict[str, torch.Tensor]:
    with EventStorage():
        losses = model.train()(batch)
    sum(losses.values()).backward()
    return losses


def without_gradient(model: nn.Module) -> list[str]:
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [n for n, p in trained if p.grad is None or not p.grad.isfinite().all()]


@pytest.fixture(params=["brs", "focal"])
def loss(request) -> str:
    return request.param


def test_one_step_of_any_batch(loss):
    """Every parameter has a gradient, that of the classes of noise is 0 without objects."""
    model, keys = small_detector(loss), set()
    for objects in ((3, 2), (0, 2), (0, 0), (35, 1)):  # at last more objects than queries
        model.zero_grad()
        losses = losses_of_step(model, inputs(*objects))
        keys.add(frozenset(losses))
        assert all(v.shape == () and v.isfinite() for v in losses.values())
        assert without_gradient(model) == []
        if objects == (0, 0):
            assert all(v == 0 for name, v in losses.items() if "denoising" in name)
            assert (model.query_head.denoising.label_embedding.weight.grad == 0).all()
    assert len(keys) == 1  # the same names whatever the batch
    assert len(keys.pop()) == {"brs": 4 * 13 + 9, "focal": 3 * 13 + 7}[loss]


def test_one_class(loss):
    cfg = small_config(loss)
    cfg.query_head.num_classes = 1
    cfg.dense_head.head.num_classes = cfg.dense_head.matcher.num_classes = 1
    cfg.roi_heads.num_classes = 1
    model = instantiate(cfg)
    losses = losses_of_step(model, random_inputs(2, 1, num_classes=1))
    assert all(v.isfinite() for v in losses.values())
    assert without_gradient(model) == []


def test_a_process_without_objects_keeps_up(programs: Programs, loss, tmp_path):
    leaf = CONFIGS / f"quick/co_dino_R_18_{loss}_300it.py"
    assert_processes_agree(programs, leaf, ["model.query_head.num_classes=2"], tmp_path)


@pytest.mark.parametrize(("loss", "count"), [("brs", 109), ("focal", 82)])
def test_number_of_terms_of_the_published_model(loss, count):
    cfg = small_config(loss)
    cfg.query_head.decoder.num_layers = 6
    with EventStorage():
        assert len(instantiate(cfg).train()(inputs(1, 1))) == count


def test_plain_dino_needs_no_denoising(loss):
    cfg = small_config(loss)
    cfg.query_head.denoising = cfg.query_losses.denoising = None
    losses = losses_of_step(instantiate(cfg), inputs(2, 1))
    assert not any("denoising" in name for name in losses)


@pytest.mark.parametrize("part", ["query_head", "query_losses"])
def test_denoising_needs_queries_and_a_criterion(part):
    cfg = small_config("brs")
    cfg[part].denoising = None
    with pytest.raises(InputError, match="set both, or both to null"):
        build_without_weights(cfg)


@pytest.mark.parametrize("name", ["iabce", "mal", "psl", "wce"])
def test_other_losses_at_every_site(name):
    cfg = small_config("focal")
    assert name in losses_of(cfg)
    model = instantiate(set_loss(cfg, name))
    losses = model.query_losses
    criteria = (losses.decoder, losses.encoder, losses.custom, losses.denoising)
    found = {type(criterion.cls_loss).__name__ for criterion in criteria}
    assert len(found) == 1 and found != {"QualityFocalLoss"}
    assert all(v.isfinite() for v in losses_of_step(model, inputs(2, 0)).values())


def test_a_leaf_becomes_the_other_one():
    first, second = (
        LazyConfig.load(str(CONFIGS / f"co_dino_5scale_R_50_{x}_1x.py")).model
        for x in ("brs", "focal")
    )
    assert set_loss(set_loss(first, "dr"), "focal") == second


def test_boxes_teach_their_own_branch_and_the_one_before(loss):
    """The box of a layer is predicted from normalized features, the next start from others."""
    model = small_detector(loss).train()
    head, outputs = model.query_head, []
    handle = head.decoder.register_forward_hook(lambda *args: outputs.append(args[-1]))
    with EventStorage():
        model(inputs(2, 1))
    handle.remove()
    _, boxes = outputs[0]
    boxes[2].sum().backward()
    norms = [
        sum(p.grad.abs().sum() if p.grad is not None else 0 for p in branch.parameters())
        for branch in head.box_branches
    ]
    assert norms[0] == 0 and norms[1] > 0 and norms[2] > 0 and norms[3] == 0


def test_detections_need_no_part_of_the_training(loss):
    model = small_detector(loss).eval()
    alone = copy.deepcopy(model)
    del alone.proposal_generator, alone.roi_heads, alone.dense_head, alone.query_losses
    del alone.query_head.custom, alone.query_head.downsample, alone.query_head.denoising
    with torch.no_grad():
        for ours, theirs in zip(model(inputs(1, 1)), alone(inputs(1, 1)), strict=True):
            first, second = ours["instances"], theirs["instances"]
            assert torch.equal(first.pred_boxes.tensor, second.pred_boxes.tensor)
            assert torch.equal(first.scores, second.scores)


def test_as_many_candidates_as_queries():
    model = small_detector("brs").eval()
    g = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(1, 1, 30, CLASSES, generator=g), torch.rand(1, 1, 30, 4)
    (found,) = model.inference(QueryPredictions(logits, boxes, hidden=logits), [(96, 128)])
    assert len(found) == 30
    best = logits.flatten().sort(descending=True).values[:30].sigmoid()
    torch.testing.assert_close(found.scores, best)


def test_one_image_on_a_canvas():
    """Gray on the right and at the bottom counts as image, and boxes stay where they are."""
    model = small_detector("focal").eval()
    (x,) = inputs(1, size=(60, 90))
    x.update(height=120, width=180)
    padded = torch.full((3, 128, 128), 114.0)
    padded[:, :60, :90] = x["image"]
    with torch.no_grad():
        whole = model([{"image": padded, "height": 256, "width": 256}])[0]["instances"]
        model.canvas_size = 128
        found = model([x])[0]["instances"]
    assert found.image_size == (120, 180)
    torch.testing.assert_close(found.pred_boxes.tensor, whole.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, whole.scores)
    losses = losses_of_step(model, inputs(2, 1))
    assert all(v.isfinite() for v in losses.values())
    with pytest.raises(InputError, match="does not fit on the canvas"):
        model.preprocess_image([{"image": torch.zeros(3, 60, 129)}])


def test_recomputed_activations_change_nothing_but_memory(loss):
    """Same losses and gradients, with a fraction of the bytes."""
    batch, results, saved = inputs(2, 1), [], []
    for recompute in (False, True):
        cfg = small_config(loss)
        cfg.query_head.encoder.num_recomputed = 2 * recompute
        cfg.query_head.decoder.num_recomputed = 3 * recompute
        cfg.recompute_backbone = recompute
        torch.manual_seed(0)
        model, total = instantiate(cfg), []
        torch.manual_seed(1)
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x, total=total: total.append(x.numel() * x.element_size()) or x, lambda x: x
        )
        with hooks:
            losses = losses_of_step(model, batch)
        saved.append(sum(total))
        results.append((losses, {n: p.grad for n, p in model.named_parameters()}))
    (plain, gradients), (recomputed, same_gradients) = results
    torch.testing.assert_close(plain, recomputed)
    torch.testing.assert_close(gradients, same_gradients)
    assert saved[1] < 0.8 * saved[0]


def test_any_class_can_choose_a_cell():
    head, logits = small_detector("brs").query_head, torch.zeros(1, 4, CLASSES)
    logits[0, 2, 3] = 1
    assert head.rank(logits).argmax() == 2


@pytest.mark.parametrize(("size", "decoded", "slope"), [(1e-4, 1e-3, 0.0), (0.2, 0.2, 1.0)])
def test_tiny_references(size, decoded, slope):
    """The first layer decodes a size below 0.001 as 0.001 and passes no gradient on."""
    head = small_detector("brs").query_head
    where = FeatureGeometry.build([torch.zeros(1, 1, 4, 4)] * 5, [(16, 16)], (16, 16))
    boxes = torch.tensor([[[0.5, 0.5, size, size]]], requires_grad=True)
    queries = Queries(torch.zeros(1, 1, 32), None, boxes)
    # At the start of training all steps are 0.
    predicted = head.decode(queries, torch.zeros(1, 80, 32), where).boxes[0, 0, 0]
    torch.testing.assert_close(predicted[2].item(), decoded, rtol=1e-2, atol=0)
    (gradient,) = torch.autograd.grad(predicted[2], boxes)
    assert gradient[0, 0, 2].item() == pytest.approx(slope, abs=1e-2)
