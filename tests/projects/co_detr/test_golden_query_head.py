"""Proposals, decoder, matching and customized queries against the published implementation."""

import pytest
import torch
from detectron2.structures import Boxes, Instances

from brloss_d2.projects.co_detr.modeling.boxes import image_scales, relative_boxes
from brloss_d2.projects.co_detr.modeling.custom_queries import (
    HeadRows,
    choose_rows,
    count_positives,
    custom_queries,
)
from brloss_d2.projects.co_detr.modeling.hungarian import HungarianMatcher
from brloss_d2.projects.co_detr.modeling.query_head import proposal_logits
from tests.helpers.golden_models import Golden, load
from tests.projects.co_detr.golden_co_detr import NAMES, geometry
from tests.projects.co_detr.golden_query_head import CLASSES, golden_query_head

IMAGES = range(2)
LAYERS = range(3)
HEADS = ("roi", "atss")
# Largest absolute differences measured: none from the memory to the input of the decoder, then 3e-6
# in features, 1.5e-6 in logits and 3e-7 in boxes.
MAPS, LOGITS, BOXES = 1e-5, 5e-6, 1e-6


@pytest.fixture(params=NAMES)
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def head(golden):
    return golden_query_head(golden).requires_grad_(False)


@pytest.fixture
def where(golden):
    return geometry(golden)


def close(found: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def objects(golden, image: int) -> tuple[torch.Tensor, torch.Tensor]:
    return golden.tensor(f"input/gt_boxes{image}"), golden.tensor(f"input/gt_classes{image}").long()


def handed_over(golden, name: str) -> HeadRows:
    """Rows of an auxiliary head, without features."""
    boxes = golden.tensor(f"{name}/handed_over/boxes")
    count = boxes.shape[1]
    if name == "roi":
        labels = golden.tensor("roi/handed_over/labels").long()
        image_of = golden.tensor("roi/rois")[:, 0]
        targets = golden.tensor("roi/target/box_targets")
        gt_boxes = [targets[image_of == i][:count] for i in IMAGES]
    else:
        labels = golden.tensor("atss/target/labels").long()
        image_of, index = golden.tensor("atss/target/positive_image_and_index").long().unbind(1)
        gt_boxes = torch.zeros_like(boxes)
        gt_boxes[image_of, index] = golden.tensor("atss/target/positive_box_targets")
    return HeadRows(list(boxes), list(labels), list(gt_boxes), features=torch.zeros_like)


def matcher(golden) -> HungarianMatcher:
    return HungarianMatcher(cls_weight=2.0 if golden.name == "co_deformable_detr" else 4.0)


def test_proposals(golden, head, where):
    start, expected = proposal_logits(where), golden.tensor("encoder/proposal_logits")
    assert torch.equal(start.isinf(), expected.isinf())
    close(start, expected, 1e-6)
    proposals = head.propose(golden.tensor("encoder/memory"), where)
    close(proposals.logits, golden.tensor("encoder/cls_logits"), LOGITS)
    close(proposals.boxes, golden.tensor("encoder/boxes_cxcywh"), BOXES)
    assert torch.equal(proposals.topk_index, golden.tensor("encoder/topk_index").long())
    stem = "main/decoder_in"
    assert torch.equal(proposals.queries.content, golden.tensor(f"{stem}/content"))
    close(proposals.queries.position, golden.tensor(f"{stem}/query_pos"), MAPS)
    close(proposals.queries.references, golden.tensor(f"{stem}/reference"), BOXES)


def test_decoder(golden, head, where):
    """Start from the maps of the neck, so that errors add up."""
    features = [golden.tensor(f"neck/p{level}") for level in range(4)]
    memory = head.encoder(features, where)
    decoded = head.decode(head.propose(memory, where).queries, memory, where)
    close(decoded.hidden, golden.tensor("main/decoder_out/hidden"), MAPS)
    close(decoded.logits, golden.tensor("main/cls_logits"), LOGITS)
    close(decoded.boxes, golden.tensor("main/boxes_cxcywh"), BOXES)


def test_matching(golden, head, where):
    memory = golden.tensor("encoder/memory")
    proposals = head.propose(memory, where)
    decoded = head.decode(proposals.queries, memory, where)
    images = []
    for i in IMAGES:
        boxes, classes = objects(golden, i)
        images.append(Instances(where.image_sizes[i], gt_boxes=Boxes(boxes), gt_classes=classes))
    found = matcher(golden)(decoded.logits, decoded.boxes, images)
    for i in IMAGES:
        for d in LAYERS:
            expected = golden.tensor(f"main/assign/layer{d}/image{i}").long() - 1
            assert torch.equal(found[d, i], expected)
        images[i].gt_classes = torch.zeros_like(images[i].gt_classes)
    found = matcher(golden)(proposals.logits[None], proposals.boxes[None], images)
    for i in IMAGES:
        expected = golden.tensor(f"encoder/assign/image{i}").long() - 1
        assert torch.equal(found[0, i], expected)


@pytest.mark.parametrize("number", range(2))
def test_chosen_rows(golden, number):
    """The number of rows is the published one; if all positives fit, so are the rows."""
    labels = handed_over(golden, HEADS[number]).labels
    published = golden.tensor(f"aux{number}/row_index").long()
    rows = choose_rows(labels, CLASSES, max_count=20)
    assert rows.shape == published.shape
    for i in IMAGES:
        count = golden.tensor(f"aux{number}/num_positive{i}").item()
        assert (labels[i] < CLASSES).sum() == count
        chosen = [set(r[i][labels[i][r[i]] < CLASSES].tolist()) for r in (rows, published)]
        assert len(chosen[0]) == len(chosen[1]) == min(count, rows.shape[1])
        assert count > rows.shape[1] or chosen[0] == chosen[1]


@pytest.mark.parametrize("number", range(2))
def test_custom_queries(golden, where, number):
    stem = f"aux{number}/query"
    rows = golden.tensor(f"aux{number}/row_index").long()
    rows_of_head = handed_over(golden, HEADS[number])
    counts = count_positives(rows_of_head.labels, CLASSES)
    found = custom_queries(rows, rows_of_head, counts, where.image_sizes)
    close(found.boxes, golden.tensor(f"{stem}/boxes_cxcywh"), 1e-6)
    assert torch.equal(found.labels, golden.tensor(f"{stem}/labels").long())
    assert (golden.tensor(f"{stem}/label_weights") == 1).all()
    positive = found.labels < CLASSES
    assert torch.equal(found.foreground, positive.flatten().nonzero().squeeze(1))
    assert torch.equal(positive, golden.tensor(f"{stem}/box_weights")[..., 0] == 1)
    expected = golden.tensor(f"{stem}/gt_boxes_cxcywh")
    scales = image_scales(where.image_sizes, expected)
    for i in IMAGES:
        boxes = relative_boxes(found.gt_boxes[i], scales[i])
        close(boxes[positive[i]], expected[i][positive[i]], 1e-6)


@pytest.mark.parametrize("number", range(2))
def test_decoded_custom_queries(golden, head, where, number):
    stem = f"aux{number}"
    boxes, features = (golden.tensor(f"{stem}/query/{x}") for x in ("boxes_cxcywh", "features"))
    queries = head.custom(boxes, features, number)
    close(queries.content, golden.tensor(f"{stem}/decoder_in/content"), MAPS)
    close(queries.position, golden.tensor(f"{stem}/decoder_in/query_pos"), MAPS)
    assert torch.equal(queries.references, golden.tensor(f"{stem}/decoder_in/reference"))
    decoded = head.decode(queries, golden.tensor("encoder/memory"), where)
    close(decoded.hidden, golden.tensor(f"{stem}/decoder_out/hidden"), MAPS)
    close(decoded.logits, golden.tensor(f"{stem}/cls_logits"), LOGITS)
    close(decoded.boxes, golden.tensor(f"{stem}/boxes_cxcywh"), BOXES)


def test_pyramid(golden, head, where):
    memory = golden.tensor("encoder/memory")
    close(head.pyramid(memory, where)[4], golden.tensor("pyramid/p4"), MAPS)
