"""Detections of whole detectors, timed."""

import csv

import inference
from support.machine import ROOT

NAMES = ["faster_rcnn_R_18_FPN_rs_300it", "yolact_R_18_rs_300it", "solov2_R_18_FPN_rs_300it"]


def test_command_line(tmp_path):
    """Every detector finds as many objects as it may, though its weights are random."""
    output = tmp_path / "new" / "inference.csv"
    configs = [str(ROOT / "configs" / "quick" / f"{name}.py") for name in NAMES]
    arguments = ["--quick", "--device", "cpu", "--output", str(output), "--configs", *configs]
    assert inference.main(arguments) == 0
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    assert [row["detections"] for row in rows] == ["100"] * 3
    assert float(rows[0]["ratio"]) == 1 and all(float(row["image_ms"]) > 0 for row in rows)
