"""The tool that records the scores of a training for the benchmark."""

import json

import pytest
import torch

import record_scores
from brloss_d2.criteria import MatchedPredictions
from tests.helpers.criteria import build_criterion


def matched(num_classes: int, offset: float) -> MatchedPredictions:
    """Two rows of foreground, one of background and one ignored."""
    logits = torch.full((4, num_classes), offset)
    logits[:2, 0] = offset + 100
    logits[3] = 1e6
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(2, 1)
    labels = torch.tensor([0, 0, num_classes, -1])
    return MatchedPredictions(logits, labels, boxes, boxes + offset, num_classes)


def test_recorder_keeps_three_windows_of_each_head():
    recorder = record_scores.ScoreRecorder(iterations=9, window=1)
    heads = {1: build_criterion("rs", "rpn"), 3: build_criterion("rs", "roi")}
    hook = torch.nn.modules.module.register_module_forward_pre_hook(recorder)
    try:
        for iteration in range(9):
            for num_classes, criterion in heads.items():
                criterion(matched(num_classes, float(iteration)))
    finally:
        hook.remove()
    found = recorder.snapshots()
    stages = {"early": 0, "mid": 4, "late": 8}
    assert set(found) == {f"{head}_{stage}" for head in ("rpn", "roi") for stage in stages}
    for stage, iteration in stages.items():
        for head, negatives in (("rpn", 1), ("roi", 7)):
            snapshot = found[f"{head}_{stage}"]
            assert snapshot["num_positives"] == 2 and snapshot["num_negatives"] == negatives
            assert set(snapshot["negatives"]) == {float(iteration)}
            assert set(snapshot["positives"]) == {float(iteration + 100)}
            (quality,) = set(snapshot["quality"])
            overlap = (10 - iteration) ** 2
            assert quality == pytest.approx(overlap / (200 - overlap), rel=1e-4)


def test_the_file_in_use_says_how_it_was_recorded():
    content = json.loads(record_scores.RECORDED.read_text())
    assert content["recorded"]["config"] == record_scores.CONFIG
    assert len(content["levels"]) == len(record_scores.LEVELS)
    for snapshot in content["snapshots"].values():
        for what in ("negatives", "positives", "quality"):
            values = snapshot[what]
            assert len(values) == len(content["levels"]) and values == sorted(values)
