"""Parts of Co-DINO against the published implementation: from the maps of the neck to the losses.

Intermediate values; tests of whole steps are in `test_golden_dino_whole`.
"""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from brloss_d2.losses import paired_box_iou
from brloss_d2.projects.co_detr.layers.position import sine_map
from brloss_d2.projects.co_detr.modeling import query_losses
from brloss_d2.projects.co_detr.modeling.query_head import proposal_logits
from brloss_d2.projects.co_detr.modeling.soft_nms import SoftNMS
from tests.helpers.golden_models import ground_truth, load, relative
from tests.projects.co_detr.golden_detector import inputs
from tests.projects.co_detr.golden_dino import NAMES, detector, geometry, noise, use_stored_draws

IMAGES, LAYERS, LEVELS = range(2), range(3), range(5)
# Sets of logits with a loss of their own, in the order of a training step.
DECODER, DENOISING = ([f"{kind}_layer{d}" for d in LAYERS] for kind in ("main", "dn"))
CUSTOM = [f"aux{head}_layer{d}" for head in range(2) for d in LAYERS]
BOX_LOSSES = ("loss_l1", "loss_giou")
QUERIES = ["encoder", *DECODER, *DENOISING, *CUSTOM]


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return load(request.param)


@pytest.fixture(scope="module")
def model(golden):
    return detector(golden).train().requires_grad_(False)


@pytest.fixture(scope="module")
def head(model):
    return model.query_head


@pytest.fixture(scope="module")
def where(golden):
    return geometry(golden)


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_geometry_and_positions(golden, where):
    """The angle of a row or column that is padding only is 0."""
    assert [list(s) for s in where.shapes] == golden.tensor("geometry/spatial_shapes").tolist()
    assert torch.equal(where.padding, golden.tensor("geometry/padding_mask").bool())
    assert torch.equal(where.valid_ratios, golden.tensor("geometry/valid_ratios"))
    found = [sine_map(mask, 16, temperature=20.0, offset=0.0) for mask in where.masks]
    close(found[0][:, :, ::2, ::2], golden.tensor("geometry/pos_encoding/p0_even_cells"), 1e-6)
    for level in LEVELS[1:]:
        close(found[level], golden.tensor(f"geometry/pos_encoding/p{level}"), 1e-6)


def test_neck_and_encoder(golden, model, where):
    with torch.no_grad():
        images = model.preprocess_image(inputs(golden))
        features = model.neck(model.backbone(images.tensor))
    for level, found in enumerate(features):
        close(found, golden.tensor(f"neck/p{level}"))
    maps = [golden.tensor(f"neck/p{level}") for level in LEVELS]
    close(model.query_head.encoder(maps, where), golden.tensor("encoder/memory"))


def test_proposals(golden, head, where):
    """The best class ranks the cells; the chosen ones alone are trained."""
    start = proposal_logits(where)
    assert torch.equal(start.isinf(), golden.tensor("encoder/proposal_logits").isinf())
    close(start, golden.tensor("encoder/proposal_logits"), 1e-6)
    proposals = head.propose(golden.tensor("encoder/memory"), where)
    assert torch.equal(proposals.topk_index, golden.tensor("encoder/topk_index").long())
    close(proposals.logits, golden.tensor("encoder/topk_cls_logits"))
    close(proposals.boxes, golden.tensor("encoder/topk_boxes_cxcywh"), 1e-6)
    count = golden.tensor("dn/pad_size").item()
    assert torch.equal(
        proposals.queries.content, golden.tensor("main/decoder_in/content")[:, count:]
    )
    expected = golden.tensor("main/decoder_in/reference")[:, count:]
    close(proposals.queries.references, expected, 1e-6)


def test_denoising_queries(golden, head, where):
    """Noise of the file gives its queries: unused slots and crossed corners included."""
    noisy = head.denoising(ground_truth(golden), noise(golden))
    assert noisy.num_groups == golden.tensor("dn/num_groups")
    assert torch.equal(noisy.queries.content, golden.tensor("dn/label_query"))
    close(noisy.queries.references, golden.tensor("dn/box_query_logits").sigmoid(), 1e-6)
    unused = (noisy.queries.content == 0).all(-1)
    assert unused.sum(1).tolist() == [0, 24]
    assert (noisy.queries.references[unused] == 0.5).all()
    assert (noisy.queries.references[..., 2:] < 1e-3).any()
    queries = head.propose(golden.tensor("encoder/memory"), where).queries
    mask = noisy.before(queries).mask
    assert torch.equal(mask, golden.tensor("dn/attention_mask").bool())


def test_decoder(golden, head, where):
    memory = golden.tensor("encoder/memory")
    queries = head.propose(memory, where).queries
    noisy = head.denoising(ground_truth(golden), noise(golden))
    positions = []
    handle = head.decoder.ref_point_head.register_forward_hook(lambda *x: positions.append(x[-1]))
    decoded = head.decode(noisy.before(queries), memory, where)
    handle.remove()
    close(torch.stack(positions), golden.tensor("main/decoder/query_pos"))
    close(decoded.hidden, golden.tensor("main/decoder_out/hidden"))
    denoised, decoded = decoded.split(golden.tensor("dn/pad_size").item())
    for stem, found in (("dn", denoised), ("main", decoded)):
        close(found.logits, golden.tensor(f"{stem}/cls_logits"))
        close(found.boxes, golden.tensor(f"{stem}/boxes_cxcywh"), 1e-6)
    # Queries of proposals see nothing of the noise.
    alone = head.decode(queries, memory, where)
    close(alone.logits, decoded.logits, 1e-6)


def test_matching(golden, model):
    sites = {
        "encoder/assign": ("encoder/topk_cls_logits", "encoder/topk_boxes_cxcywh", ...),
        **{f"main/assign/layer{d}": ("main/cls_logits", "main/boxes_cxcywh", d) for d in LAYERS},
    }
    for stem, (*names, layer) in sites.items():
        logits, boxes = (golden.tensor(name)[layer] for name in names)
        found = model.query_losses.matcher(logits[None], boxes[None], ground_truth(golden))
        for i, matched in enumerate(found[0]):
            expected = golden.tensor(f"{stem}/image{i}").long() - 1
            assert torch.equal(matched, expected), stem


@pytest.mark.parametrize("number", range(2))
def test_custom_queries(golden, head, where, number):
    stem = f"aux{number}"
    queries = head.custom(golden.tensor(f"{stem}/query/boxes_cxcywh"), None, number)
    close(queries.content, golden.tensor(f"{stem}/decoder_in/content"))
    assert torch.equal(queries.references, golden.tensor(f"{stem}/decoder_in/reference"))
    decoded = head.decode(queries, golden.tensor("encoder/memory"), where)
    close(decoded.hidden, golden.tensor(f"{stem}/decoder_out/hidden"))
    close(decoded.logits, golden.tensor(f"{stem}/cls_logits"))
    close(decoded.boxes, golden.tensor(f"{stem}/boxes_cxcywh"), 1e-6)


def test_regions_of_five_levels(golden, model, where):
    maps = model.query_head.pyramid(golden.tensor("encoder/memory"), where)
    close(maps[5], golden.tensor("pyramid/p5"))
    rois = golden.tensor("extra/rois")
    pooler = model.roi_heads.box_pooler
    boxes = [Boxes(rois[rois[:, 0] == i, 1:]) for i in IMAGES]
    levels = assign_boxes_to_levels([Boxes(rois[:, 1:])], 2, 6, 56, 2)
    assert torch.equal(levels, golden.tensor("extra/roi_levels").long())
    pooled = pooler(maps[:5], boxes)[:, ::4]
    order = rois[:, 0].argsort(stable=True)
    close(pooled, golden.tensor("extra/roi_pooled_8_channels")[order])


@pytest.fixture(scope="module")
def sites(golden, model):
    """Input and criterion of each set of queries in a training step, by site."""
    layers, match = [], query_losses.match_queries

    def keep(*args):
        matched = match(*args)
        layers.extend(matched.layers())
        return matched

    with (
        mock.patch.object(query_losses, "match_queries", keep),
        EventStorage(),
        use_stored_draws(model, golden),
    ):
        model(inputs(golden))
    sets = (["encoder"], DECODER, DENOISING, CUSTOM)
    kinds = ("encoder", "decoder", "denoising", "custom")
    criteria = [
        model.query_losses.get_submodule(kind)
        for kind, names in zip(kinds, sets, strict=True)
        for _ in names
    ]
    return dict(zip(QUERIES, zip(criteria, layers, strict=True), strict=True))


@pytest.mark.parametrize("site", QUERIES)
def test_losses_of_queries(golden, sites, site):
    """Targets, values and gradients of the logits before any weight."""
    criterion, matched = sites[site]
    matched = replace(matched, logits=matched.logits.detach().requires_grad_())
    quality = paired_box_iou(matched.pred_boxes, matched.gt_boxes)
    if f"site/{site}/labels" in golden:
        labels = golden.tensor(f"site/{site}/labels").long()
        assert torch.equal(matched.labels, labels)
        foreground = golden.tensor(f"site/{site}/quality")[matched.foreground]
        close(quality, foreground)
        count = golden.tensor(f"site/{site}/avg_factor")
        assert max(len(matched.foreground), 1) == count
    else:
        targets = matched.binary_labels().float()
        targets[matched.foreground, matched.labels[matched.foreground]] = quality
        close(targets.flatten(), golden.tensor(f"site/{site}/targets"))
    losses = {k: x for k, x in criterion(matched).losses.items() if k not in BOX_LOSSES}
    if "loss_rank" in losses:
        found = torch.stack([losses["loss_rank"], losses["loss_sort"]]).detach()
        torch.testing.assert_close(
            found, golden.tensor(f"site/{site}/rank_sort"), rtol=1e-4, atol=1e-6
        )
    sum(losses.values()).backward()
    gradient = matched.logits.grad.flatten()
    assert relative(gradient, golden.tensor(f"site/{site}/logit_grad")) < 1e-3


def test_soft_nms(golden):
    stored = golden.tensor("extra/soft_nms/boxes_scores")
    found = Instances((1000, 1000), pred_boxes=Boxes(stored[:, :4]), scores=stored[:, 4])
    found.pred_classes = golden.tensor("extra/soft_nms/classes").long()
    found.row = torch.arange(len(found))
    kept = SoftNMS(iou_threshold=0.8, min_score=1e-3)(found, len(found))
    assert torch.equal(kept.row, golden.tensor("extra/soft_nms/kept_index").long())
    close(kept.scores, golden.tensor("extra/soft_nms/kept_scores"), 1e-6)


def test_candidates_and_suppression(golden, model):
    """As many pairs as queries before suppression, and their lowered scores after it."""
    for i in IMAGES:
        stem = f"detections/before_nms/image{i}"
        stored, size = golden.tensor(f"{stem}/boxes_scores"), (1000, 1000)
        found = Instances(size, pred_boxes=Boxes(stored[:, :4]), scores=stored[:, 4])
        found.pred_classes = golden.tensor(f"{stem}/classes").long()
        found.row = torch.arange(len(found))
        kept = model.suppression(found, len(found))
        assert len(stored) == model.query_head.content.num_embeddings
        assert torch.equal(kept.row, golden.tensor(f"{stem}/kept_index").long())
        close(kept.scores, golden.tensor(f"{stem}/kept_scores"), 1e-6)
