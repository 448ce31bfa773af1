"""ATSS and PAA against the published implementation, each step fed with its stored inputs.

The files of BRS are shipped; with BRLOSS_D2_GOLDEN naming the folder of the full set, those of the
other losses are compared as well.
"""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, ImageList, Instances
from golden_models import Golden, available, load, relative

from brloss_d2.modeling.label_assignment import IGNORED, AnchorPredictions, LevelAnchors

ROOT = Path(__file__).parents[2]
CLASSES = 5
LEVELS = range(5)
LOSSES = ("brs", "rs", "ap", "bap", "focal")
TERMS = {
    "loss_box_reg": ("loss_bbox",),
    "loss_quality": ("loss_centerness", "loss_iou"),
}


@pytest.fixture(params=available(*(f"{arch}_{x}" for arch in ("atss", "paa") for x in LOSSES)))
def golden(request) -> Golden:
    return load(request.param)


@pytest.fixture
def cfg(golden):
    arch, loss = golden.name.split("_")
    cfg = LazyConfig.load(str(ROOT / f"configs/coco/{arch}_R_50_FPN_{loss}_1x.py")).model
    cfg.num_classes = CLASSES
    return cfg


@pytest.fixture
def model(cfg):
    return instantiate(cfg).train()


def ground_truth(golden) -> list[Instances]:
    images = []
    for i in range(2):
        h, w = golden.tensor("in/img_shape")[i].tolist()
        boxes = Boxes(golden.tensor(f"in/gt_boxes{i}"))
        images.append(
            Instances((h, w), gt_boxes=boxes, gt_classes=golden.tensor(f"in/gt_labels{i}"))
        )
    return images


def outputs(golden) -> list[list[torch.Tensor]]:
    """Logits, deltas and quality of the levels, leaves that collect gradients."""
    kinds = [kind for kind in ("cls", "reg", "aux") if f"head/{kind}0" in golden]
    return [
        [golden.tensor(f"head/{kind}{level}").requires_grad_() for level in LEVELS]
        for kind in kinds
    ]


def anchors(golden, model) -> list[Boxes]:
    return model.anchor_generator([golden.tensor(f"head/cls{level}") for level in LEVELS])


def match(golden, model, predictions):
    return model.match(anchors(golden, model), predictions, ground_truth(golden))


def test_anchors(golden, model):
    for level, boxes in enumerate(anchors(golden, model)):
        expected = golden.tensor("in/base_anchors")[level]
        torch.testing.assert_close(boxes.tensor[: len(expected)], expected)


def image_anchors(golden, model, image: int) -> tuple[LevelAnchors, torch.Tensor]:
    """The anchors of an image that count, and their indices."""
    rows = (golden.tensor(f"head/assigned{image}") != -3).nonzero().squeeze(1)
    return LevelAnchors.cat(anchors(golden, model))[rows], rows


def test_assignment(golden, model):
    """Of ATSS; of PAA the first stage, which names the candidates."""
    assigner = getattr(model.assigner, "candidates", model.assigner)
    for i, objects in enumerate(ground_truth(golden)):
        inside, rows = image_anchors(golden, model, i)
        expected = golden.tensor(f"head/assigned{i}")[rows]
        assert torch.equal(assigner(inside, objects), expected)


def test_scores_and_split_of_paa(golden, model):
    if not golden.name.startswith("paa"):
        pytest.skip("ATSS looks at no predictions")
    logits, deltas = (torch.cat(x, 1).detach() for x in model._rows(outputs(golden)[:2]))
    for i, objects in enumerate(ground_truth(golden)):
        inside, rows = image_anchors(golden, model, i)
        boxes = model.box_transform.apply_deltas(deltas[i][rows], inside.boxes)
        predictions = AnchorPredictions(logits[i][rows], boxes)
        place = torch.searchsorted(rows, golden.tensor(f"paa/cand{i}"))
        owners = golden.tensor(f"paa/cand_gt{i}")
        scores = model.assigner.scores(predictions[place], objects, owners)
        torch.testing.assert_close(scores, golden.tensor(f"paa/cand_loss{i}"), rtol=1e-5, atol=1e-6)
        assigned = model.assigner(inside, objects, predictions)
        labels = torch.where(assigned >= 0, objects.gt_classes[assigned], CLASSES)
        assert torch.equal(labels, golden.tensor(f"paa/labels{i}")[rows])
        assert (assigned >= 0).sum() == golden.tensor(f"paa/num_pos{i}")


def test_padding_is_ignored(golden, model):
    labels = match(golden, model, outputs(golden)).labels.view(2, -1)
    for i in range(2):
        assert torch.equal(labels[i] == -1, golden.tensor(f"head/assigned{i}") == -3)


def test_ranking_targets(golden, model):
    if "head/rank_targets" not in golden:
        pytest.skip("no ranking loss")
    matched = match(golden, model, outputs(golden))
    targets = matched.binary_labels().float()
    rows = matched.foreground()
    if golden.name.endswith("rs"):
        quality = model.criterion_quality(matched) if hasattr(model, "criterion_quality") else None
        from brloss_d2.losses import paired_box_iou

        quality = paired_box_iou(matched.pred_boxes, matched.gt_boxes).detach()
        targets[rows, matched.labels[rows]] = quality
    expected = stored_order(golden, golden.tensor("head/rank_targets"))
    torch.testing.assert_close(targets.view_as(expected), expected, rtol=1e-5, atol=1e-6)


def stored_order(golden, flat: torch.Tensor) -> torch.Tensor:
    """(N, R, K) of a stored flat array; ATSS stores level by level, PAA image by image."""
    if golden.name.startswith("paa"):
        return flat.view(2, -1, CLASSES)
    sizes = [2 * golden.tensor(f"head/cls{level}")[0].numel() for level in LEVELS]
    return torch.cat([part.view(2, -1, CLASSES) for part in flat.split(sizes)], 1)


def test_losses_and_gradients(golden, model):
    predictions = outputs(golden)
    output = model.criterion(match(golden, model, predictions))
    for name, value in output.losses.items():
        keys = [f"loss/{key}" for key in TERMS.get(name, (name,))]
        (expected,) = [golden.tensor(key) for key in keys if key in golden]
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=0)
    total = sum(output.losses.values())
    torch.testing.assert_close(total.detach(), golden.tensor("loss/total"), rtol=1e-5, atol=0)
    total.backward()
    for kind, leaves in zip(("cls", "reg", "aux"), predictions, strict=False):
        for level in LEVELS:
            expected = golden.tensor(f"gradout/head/{kind}{level}")
            assert relative(leaves[level].grad, expected) < 1e-4, (kind, level)


@pytest.mark.parametrize("prefix", ["test0", "test1", "test0_pre20"])
def test_detections(golden, model, prefix):
    """Each image on its own, padded to a multiple of 32, as the stored run had it."""
    found = detect(golden, model, prefix)
    assert_same_detections(golden, prefix, found)


def detect(golden, model, prefix: str) -> Instances:
    image = int(prefix[4])
    if prefix.endswith("pre20"):
        model.postprocessor.select.topk = 20
    h, w = golden.tensor("in/img_shape")[image].tolist()
    if image == 1:
        pytest.skip("its head outputs without the other image's padding are not stored")
    predictions = [[x[image : image + 1].detach() for x in kind] for kind in outputs(golden)]
    images = ImageList(golden.tensor("in/img")[image : image + 1], [(h, w)])
    return model.forward_inference(images, predictions[0], predictions)[0]


def assert_same_detections(golden, prefix: str, found: Instances) -> None:
    """As sets: scores closer than 1e-6 may swap."""
    boxes = golden.tensor(f"{prefix}/boxes")
    assert len(found) == len(boxes)
    expected = rows_of(boxes, golden.tensor(f"{prefix}/scores"), golden.tensor(f"{prefix}/labels"))
    actual = rows_of(found.pred_boxes.tensor, found.scores, found.pred_classes)
    distance = torch.cdist(expected, actual, p=torch.inf)
    assert distance.amin(0).max() < 1e-3
    assert distance.amin(1).max() < 1e-3


def rows_of(boxes, scores, labels) -> torch.Tensor:
    """Boxes in pixels, scores scaled up to weigh like pixels, classes set well apart."""
    return torch.cat([boxes, 100 * scores[:, None], 1000.0 * labels[:, None]], 1)


def test_ignored_is_not_background():
    assert IGNORED != -1
