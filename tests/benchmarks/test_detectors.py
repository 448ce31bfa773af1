"""Iterations of whole detectors, timed."""

import csv

import torch
from detectron2.utils.events import EventStorage
from torch import nn

import detectors
from brloss_d2.criteria import RankingCriterion
from brloss_d2.losses import GIoULoss, RankSortLoss, SelfBalancer
from brloss_d2.projects.co_detr.modeling.unit_frame import UnitFrameCriterion
from detectors import Detector, outer_criteria, random_batch
from support.machine import ROOT

QUICK = ROOT / "configs" / "quick"
CONFIGS = [QUICK / f"faster_rcnn_R_18_FPN_{loss}_300it.py" for loss in ("ce", "rs")]


def test_made_up_objects_lie_in_their_image():
    (image,) = random_batch(1, (96, 128), 50, 3)
    boxes = image["instances"].gt_boxes.tensor
    assert image["image"].shape == (3, 96, 128)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= torch.tensor([128.0, 96.0])).all()
    assert image["instances"].gt_classes.unique().tolist() == [0, 1, 2]
    hull = image["instances"].gt_masks.get_bounding_boxes().tensor
    torch.testing.assert_close(hull, boxes, rtol=0, atol=1e-4)


def test_replaying_the_criteria_leaves_the_network_alone():
    detector = Detector(CONFIGS[1], "cpu")
    batch = random_batch(1, (96, 128), 3, detector.num_classes)
    with EventStorage():
        detector.calibrate(batch)
        before = {name: p.clone() for name, p in detector.model.named_parameters()}
        assert detector.step(batch) > 0
        gradients = [p.grad.clone() for p in detector.model.parameters() if p.grad is not None]
        assert detector.replay(batch)() > 0
    after = dict(detector.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    kept = [p.grad for p in detector.model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, kept, strict=True))


def test_a_criterion_within_another_is_not_counted_twice():
    inner = RankingCriterion(RankSortLoss(), GIoULoss(), SelfBalancer())
    outer = UnitFrameCriterion(inner)
    head = nn.ModuleDict({"rpn": outer, "boxes": nn.Sequential(nn.Linear(2, 2), inner)})
    assert list(outer_criteria(head)) == [outer, inner]
    assert list(outer_criteria(nn.Sequential(outer))) == [outer]


def test_command_line(tmp_path, capsys):
    output = tmp_path / "new" / "detectors.csv"
    arguments = ["--quick", "--device", "cpu", "--output", str(output), "--configs"]
    for _ in range(2):
        assert detectors.main([*arguments, *map(str, CONFIGS)]) == 0
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == 2 * [path.stem for path in CONFIGS]
    for row in rows:
        assert 0 < float(row["criteria_ms"]) < float(row["iteration_ms"])
    assert float(rows[0]["ratio"]) == 1
    assert "losses ms" in capsys.readouterr().out
