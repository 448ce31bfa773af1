"""brloss-analyze, from saved detections to tables, thresholds and pictures."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from brloss_d2.cli import analysis_pictures, analyze, report
from brloss_d2.cli.analysis_tables import error_tables
from brloss_d2.evaluation import analyze as analyze_detections
from brloss_d2.evaluation import load_calibration
from brloss_d2.evaluation.analysis import KINDS, ErrorKinds
from brloss_d2.evaluation.run import EvaluatedRun
from tests.helpers.imaginary_run import write_run

CURVES = {"precision_recall.png", "scores.png"}
IMAGES = {"predictions_01.png", "worst_01.png"}
PICTURES = CURVES | IMAGES | {"errors.png", "confusion_matrix.png"}
TABLES = {"tables.txt", "classes.csv"}
FEW = ["--worst-images", "1"]


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Two images, and no page, which tests/cli/test_report.py looks at."""
    monkeypatch.setattr(analyze, "_SAMPLES", 1)
    monkeypatch.setattr(report, "write_report", lambda folder, *_: f"{folder}/report.html")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "brs").mkdir()
    return write_run(tmp_path / "brs")


def test_tables_thresholds_and_pictures(run, capsys):
    assert analyze.main(["--output-dir", str(run), *FEW]) == 0
    printed = capsys.readouterr().out
    found = load_calibration(str(run))
    assert 0 < found.score_threshold < 0.1
    assert set(found.per_class) == {"circle", "rectangle", "triangle"}
    assert found.computed_on["images"] == 12 and found.calibration is None
    assert f"Suggested score threshold: {found.score_threshold:.4f}" in printed
    rows = [line.split() for line in printed.split("\n")]
    (mean,) = [row for row in rows if row[:1] == ["mean"]]
    circle, counted, confused = [row for row in rows if row[:1] == ["circle"]]
    objects, tp, fp, fn = map(int, counted[1:5])
    assert objects == tp + fn and float(counted[5]) == pytest.approx(100 * tp / (tp + fp), abs=0.01)
    assert f"from score {found.score_threshold:.4f} on (lowest LRP, in calibration.json)" in printed
    assert sum(map(float, confused[1:])) == pytest.approx(100, abs=0.3)
    assert max(map(len, printed[: printed.index("threshold:")].split("\n"))) <= 80
    assert 5 < float(mean[1]) < 95 and 5 < float(mean[2]) < 95
    assert float(circle[-1]) == pytest.approx(found.per_class["circle"], abs=1e-4)
    assert {path.name for path in (run / "analysis").iterdir()} == PICTURES | TABLES
    assert (run / "analysis" / "tables.txt").read_text().strip() in printed
    for name in PICTURES:
        with Image.open(run / "analysis" / name) as image:
            assert min(image.size) > 300


def test_the_numbers_are_those_of_the_evaluator(run, capsys):
    from detectron2.data import MetadataCatalog

    from brloss_d2.evaluation import COCOEvaluator

    loaded = EvaluatedRun.load(str(run))
    analysis = analyze_detections(loaded.json_file, loaded.results, loaded.category_names)
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


def test_the_errors_are_those_of_hotcoco(run):
    hotcoco = pytest.importorskip("hotcoco")
    loaded = EvaluatedRun.load(str(run))
    analysis = analyze_detections(loaded.json_file, loaded.results, loaded.category_names)
    truth = hotcoco.COCO(loaded.json_file)
    evaluation = hotcoco.COCOeval(truth, truth.load_res(loaded.results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    assert np.nanmean(analysis.class_f1) == pytest.approx(100 * evaluation.f_scores()["F1_50"])
    tide = evaluation.tide_errors()
    assert analysis.errors.counts == tide["counts"]
    assert analysis.errors.ap_loss["Loc"] == pytest.approx(100 * tide["delta_ap"]["Loc"])
    confusion, matches = analysis.errors.confusion, analysis.matches
    assert confusion.shape == (4, 4) and confusion[3, 3] == 0
    assert confusion[:3].sum(axis=1).tolist() == matches.num_objects.tolist()
    kept = matches.scores >= analysis.errors.score_threshold
    assert confusion[:, :3].sum() == kept.sum()


def test_many_classes_are_a_list_of_confusions():
    errors = ErrorKinds(
        dict.fromkeys(KINDS, 1),
        dict.fromkeys(KINDS, 0.5),
        np.diag(np.full(31, 9)) + np.eye(31, k=1, dtype=int),
        0.5,
    )
    analysis = SimpleNamespace(errors=errors, class_names=[f"class {i}" for i in range(30)])
    *_, table = error_tables(analysis)
    assert len(table.split("\n")) == 3 + 10 and "class 0  class 1" in table
    assert max(map(len, table.split("\n"))) <= 80


def test_without_hotcoco_there_are_no_kinds_of_errors(run, monkeypatch, capsys):
    monkeypatch.setattr("brloss_d2.evaluation.protocols.hotcoco", None)
    assert analyze.main(["--output-dir", str(run), *FEW]) == 0
    assert "TIDE" not in capsys.readouterr().out
    names = {path.name for path in (run / "analysis").iterdir()}
    assert names == CURVES | IMAGES | TABLES


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_calibration_and_classes(run, capsys, kind):
    arguments = ["--output-dir", str(run), "--calibration", kind, "--per-class", *FEW]
    assert analyze.main(arguments) == 0
    assert "held out" in capsys.readouterr().out
    found = load_calibration(str(run))
    assert found.calibration["kind"] == kind
    assert found.computed_on["held_out"]["ece_after"] < found.computed_on["held_out"]["ece_before"]
    names = {path.name for path in (run / "analysis").iterdir()}
    assert names == PICTURES | TABLES | {"reliability.png", "classes.png", "classes_1.png"}


def test_a_threshold_of_other_images_stays(run, capsys, monkeypatch):
    """One chosen on validation images is not chosen again on those to test on."""
    for name in ("draw_charts", "draw_images"):
        monkeypatch.setattr(analysis_pictures, name, lambda *_, **options: [])
    arguments = ["--output-dir", str(run), *FEW]
    assert analyze.main(arguments) == 0
    path = run / "calibration.json"
    of_val = json.loads(path.read_text())
    for key, value, stays in (
        ("annotations", "/data/of_val.json", True),
        ("annotations", "/moved/" + Path(of_val["computed_on"]["annotations"]).name, False),
        ("weights", "others", False),
    ):
        computed_on = {**of_val["computed_on"], "annotations": "/data/of_val.json", key: value}
        text = json.dumps({**of_val, "score_threshold": 0.75, "computed_on": computed_on})
        path.write_text(text)
        assert analyze.main(arguments) == 0
        printed = capsys.readouterr().out
        told = "from score 0.7500 on (of other images, in calibration.json)"
        assert (told in printed, path.read_text() == text) == (stays, stays)
    assert "calibration.json stays that of" not in printed


def test_another_threshold(run, capsys, monkeypatch):
    for name in ("draw_charts", "draw_images"):
        monkeypatch.setattr(analysis_pictures, name, lambda *_, **options: [])
    assert analyze.main(["--output-dir", str(run), "--score-threshold", "1", *FEW]) == 0
    printed = capsys.readouterr().out
    assert "Classes, from score 1.0000 on (--score-threshold), at IoU 0.5:" in printed
    (row,) = [line.split() for line in printed.split("\n") if line.startswith("all classes")]
    assert row[3:] == ["0", "0", row[2], "-", "0.00", "0.00"]
    assert load_calibration(str(run)).score_threshold < 0.1  # as suggested
    with pytest.raises(SystemExit):
        analyze.main(["--output-dir", str(run), "--score-threshold", "1.5"])
    assert "expected a number from 0 to 1, got 1.5" in capsys.readouterr().err


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
        assert analyze.main(["--output-dir", str(run), *arguments]) == 1
        (line,) = capsys.readouterr().err.strip().split("\n")
        assert line.startswith("error: ") and message in line
        assert not (run / "calibration.json").exists()
