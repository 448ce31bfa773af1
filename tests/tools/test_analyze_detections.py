"""tools/analyze_detections.py, from saved detections to tables, thresholds and pictures."""

import json

import pytest
from PIL import Image

from brloss_d2.evaluation import load_calibration
from tests.helpers.imaginary_run import write_run
from tools import analyze_detections

PICTURES = {"precision_recall.png", "scores.png"}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "brs").mkdir()
    return write_run(tmp_path / "brs")


def test_tables_thresholds_and_pictures(run, capsys):
    assert analyze_detections.main(["--output-dir", str(run)]) == 0
    printed = capsys.readouterr().out
    found = load_calibration(str(run))
    assert 0 < found.score_threshold < 0.1
    assert set(found.per_class) == {"circle", "rectangle", "triangle"}
    assert found.computed_on["images"] == 12 and found.calibration is None
    assert f"Suggested score threshold: {found.score_threshold:.4f}" in printed
    rows = [line.split() for line in printed.split("\n")]
    (mean,) = [row for row in rows if row[:1] == ["mean"]]
    (circle,) = [row for row in rows if row[:1] == ["circle"]]
    assert 5 < float(mean[1]) < 95 and 5 < float(mean[2]) < 95
    assert float(circle[-1]) == pytest.approx(found.per_class["circle"], abs=1e-4)
    assert {path.name for path in (run / "analysis").iterdir()} == PICTURES | {"tables.txt"}
    assert (run / "analysis" / "tables.txt").read_text().strip() in printed
    for name in PICTURES:
        with Image.open(run / "analysis" / name) as image:
            assert min(image.size) > 300


def test_the_numbers_are_those_of_the_evaluator(run, capsys):
    from detectron2.data import MetadataCatalog

    from brloss_d2.evaluation import COCOEvaluator
    from brloss_d2.evaluation.analysis import analyze
    from brloss_d2.plotting import EvaluatedRun

    loaded = EvaluatedRun.load(str(run))
    analysis = analyze(loaded.json_file, loaded.results, loaded.category_names)
    name = "test_brs"
    evaluator = COCOEvaluator(name, ("bbox",), output_dir=None)
    ids = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    own = [{**r, "category_id": ids[r["category_id"]]} for r in loaded.results]
    evaluator.reset()
    evaluator._predictions = [{"image_id": 0, "instances": own}]
    expected = evaluator.evaluate()["bbox"]
    for metric, value in analysis.metrics.items():
        if metric in expected:
            assert value == pytest.approx(expected[metric], nan_ok=True), metric
    for label, class_ in enumerate(analysis.class_names):
        assert analysis.class_ap[label] == pytest.approx(expected[f"AP-{class_}"])
        assert analysis.lrp.olrp[label] * 100 == pytest.approx(expected[f"oLRP-{class_}"])


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_calibration_and_classes(run, capsys, kind):
    arguments = ["--output-dir", str(run), "--calibration", kind, "--per-class"]
    assert analyze_detections.main(arguments) == 0
    assert "held out" in capsys.readouterr().out
    found = load_calibration(str(run))
    assert found.calibration["kind"] == kind
    assert found.computed_on["held_out"]["ece_after"] < found.computed_on["held_out"]["ece_before"]
    names = {path.name for path in (run / "analysis").iterdir()}
    assert names == PICTURES | {"tables.txt", "reliability.png", "classes.png", "classes_1.png"}


def test_mistakes_end_in_one_line(run, capsys):
    results = run / "inference" / "coco_instances_results.json"
    own = json.loads(results.read_text())
    cases = [
        (own, ["--task", "segm"], "no masks"),
        ([], [], "no detections"),
        ([{**own[0], "bbox": [0, 0, 1, 1]}], [], "No detection is correct"),
    ]
    for content, arguments, message in cases:
        results.write_text(json.dumps(content))
        assert analyze_detections.main(["--output-dir", str(run), *arguments]) == 1
        (line,) = capsys.readouterr().err.strip().split("\n")
        assert line.startswith("error: ") and message in line
        assert not (run / "calibration.json").exists()
