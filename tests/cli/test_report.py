"""report.html: the page of a run, also of one that has little to show."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brloss_d2.cli import analyze, report_sections
from brloss_d2.cli.analysis_pictures import Drawn, draw_images, files_of
from brloss_d2.cli.report import write_report
from brloss_d2.cli.report_sections import Findings
from brloss_d2.cli.run_facts import settings_of, training_in_log
from brloss_d2.evaluation import Analysis, ErrorKinds, Matches, OptimalLRP
from brloss_d2.evaluation.analysis import KINDS
from brloss_d2.evaluation.counts import Counts
from brloss_d2.evaluation.run import EvaluatedRun
from brloss_d2.plotting.run_plots import TrainedRun
from tests.helpers.imaginary_run import write_metrics, write_run
from tests.helpers.web_pages import Page

LOG = """[01/02] brloss_d2.engine.train DEBUG: Command line: train_net.py --config-file a<b>.py x=1
[01/02] brloss_d2.engine.train DEBUG: Environment:
Python                           3.11.7 (main, May  9) [GCC 12.2.0]
numpy                            2.4.6
detectron2                       0.6 @/somewhere/detectron2
[01/02] brloss_d2.engine.train DEBUG: Seed: 17
[01/02] brloss_d2.engine.train DEBUG: Command line: train_net.py --config-file c.py --eval-only
Python                           3.12.0
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "brs").mkdir()
    return write_run(tmp_path / "brs")


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def sections_of(seen: Page) -> list[str]:
    """Titles after that of the page, its heading and the line below: links are first."""
    links = seen.sources[: sum(source.startswith("#") for source in seen.sources)]
    return seen.texts[3 : 3 + len(links)]


def many_classes(count: int) -> Findings:
    """An analysis in which class i has i objects, all of them found, and no class is confused."""
    labels = np.repeat(np.arange(count), np.arange(count))
    scores, ious = np.full(len(labels), 0.9), np.full(len(labels), 0.8)
    matches = Matches(labels, scores, ious, np.zeros_like(labels), np.arange(count))
    confusion = np.zeros((count + 1, count + 1), int)
    errors = ErrorKinds(dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0.0), confusion, 0.5)
    analysis = Analysis(
        task="bbox",
        class_names=[f"class {i}" for i in range(count)],
        metrics={},
        class_ap=np.full(count, 50.0),
        class_f1=np.full(count, 50.0),
        lrp=OptimalLRP.of(matches),
        recalls=np.linspace(0, 1, 101),
        precisions=np.ones((1, 101, count)),
        iou_thresholds=np.array([0.5]),
        matches=matches,
        num_images=1,
        errors=errors,
    )
    return Findings(analysis, Counts.of(matches, 0.5), "from score 0.5 on", [], [], "no such.png")


def test_the_page_of_an_analyzed_run(run, capsys, monkeypatch):
    monkeypatch.setattr(analyze, "_SAMPLES", 1)
    (run / "log.txt").write_text(LOG)
    (run / "model_final.pth").write_bytes(b"")
    Image.new("RGB", (60, 40)).save(run / "data.png")
    name = "<i>&\"'\u00fc.png"
    truth = run / "shapes" / "annotations" / "instances_val.json"
    content = json.loads(truth.read_text())
    content["categories"][0]["name"] = "<b>round</b>"
    first = run / "shapes" / "val" / content["images"][0]["file_name"]
    content["images"][0]["file_name"] = first.rename(first.parent / name).name
    truth.write_text(json.dumps(content))
    assert analyze.main(["--output-dir", str(run), "--worst-images", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"report:           {run}/report.html\n")
    seen = page_of(run)
    assert sections_of(seen) == [
        *("Result", "Training", "Classes", "Curves", "Errors", "Sizes", "Data", "Predictions"),
        *("Worst images", "Use"),
    ]
    assert {"script", "link", "iframe", "b>round</b"}.isdisjoint(seen.tags)
    assert {source[:5] for source in seen.sources if source[0] != "#"} == {"data:"}
    shown = "\n".join(seen.texts)
    threshold = json.loads((run / "calibration.json").read_text())["score_threshold"]
    for text in ("<b>round</b>", name, "a<b>.py", "17", f"from score {threshold:.4f} on"):
        assert text in shown, text
    assert f"--weights {run}/model_final.pth" in shown
    # The charts of losses, of precision (twice) and of scores (twice); confusion, data, 2 images.
    assert seen.tags.count("img") == 5 + 1 + 1 + 2
    rows = (run / "analysis" / "classes.csv").read_text().split("\n")
    assert rows[0].startswith("class,objects,TP,FP,FN,P,R,F1,AP,oLRP") and len(rows) == 5
    assert rows[1].startswith("<b>round</b>,") and rows[1].endswith(f",{threshold},0.5,bbox")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda run: (run / "inference" / "coco_instances_results.json").unlink(),
            "evaluate first",
        ),
        (lambda run: results(run).write_text("[]"), "no detections"),
        (lambda run: results(run).rename(results(run, "lvis")), "LVIS"),
        (lambda run: (run / "config.yaml").write_text("{dataloader: {}}"), "without validation"),
    ],
)
def test_a_run_with_nothing_to_analyze_has_a_page_that_says_so(run, capsys, change, message):
    change(run)
    assert analyze.main(["--output-dir", str(run)]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"report:           {run}/report.html\n"
    assert printed.err.count("\n") == 1 and message in printed.err
    seen = page_of(run)
    assert sections_of(seen) == ["Result", "Training", "Curves", "Use"]
    assert any(message in text for text in seen.texts) and "img" in seen.tags  # the losses
    assert not (run / "calibration.json").exists() and not (run / "analysis").exists()


def results(run: Path, protocol: str = "coco") -> Path:
    return run / "inference" / f"{protocol}_instances_results.json"


def test_damaged_detections_leave_no_page(run, capsys):
    results(run).write_text("[{")
    assert analyze.main(["--output-dir", str(run)]) == 1
    assert "is not valid JSON" in capsys.readouterr().err
    assert not list(run.glob("report.html*"))


def test_damaged_files_of_the_training_are_sentences(run):
    (run / "metrics.json").write_text("no json\n")
    (run / "config.yaml").write_text("a: [1")
    (run / "data.png").write_bytes(b"\x89PNG")
    shown = "\n".join(page_of(Path(write_report(str(run), None, "Nothing.")).parent).texts)
    assert "metrics.json, line 1: expected a record of metrics" in shown
    assert "config.yaml cannot be read" in shown and "data.png" in shown
    assert f"There are no weights in {run}." in shown


def test_metrics_of_a_run_without_coco_results(tmp_path):
    """LVIS: rare, common and frequent classes, and the AP of each class."""
    classes = {f"segm/AP-{name}": value for name, value in (("b & c", 20.0), ("a", 10.0))}
    record = {"iteration": 4, "segm/AP": 15.0, "segm/APr": 1.0, "segm/APf": 25.0, **classes}
    write_metrics(tmp_path, [record])
    write_report(str(tmp_path), None, "It is LVIS.")
    seen = page_of(tmp_path)
    assert sections_of(seen) == ["Result", "Training", "Classes", "Curves", "Use"]
    at = seen.texts.index("APr")
    assert seen.texts[at - 1 : at + 6] == ["AP", "APr", "APf", "masks", "15.0", "1.0", "25.0"]
    at = seen.texts.index("b & c")
    assert seen.texts[at - 3 : at + 3] == ["a", "masks", "10.0", "b & c", "masks", "20.0"]


@pytest.mark.parametrize("last", [{"bbox/AP": np.nan, "bbox/AP50": np.nan}, {"bbox/oLRP": 100.0}])
def test_a_last_evaluation_that_found_nothing(tmp_path, last):
    """The one before is not shown as the last."""
    earlier = {"iteration": 4, "bbox/AP": 15.0, "bbox/AP50": 30.0, "bbox/AP-nut": 15.0}
    write_metrics(tmp_path, [earlier, {"iteration": 9, **last}])
    write_report(str(tmp_path), None, "There are no detections.")
    texts = page_of(tmp_path).texts
    assert "Last evaluation during the training, iteration 9: nothing was found" in texts
    assert not {"15.0", "30.0"} & set(texts)
    at = texts.index("nut")
    assert texts[at : at + 3] == ["nut", "boxes", "\N{EN DASH}"]


@pytest.mark.parametrize("count", [1, 80, 1203])
def test_any_number_of_classes(count):
    found = many_classes(count)
    seen = Page(report_sections.classes(found))
    assert seen.tags.count("tr") == 1 + count
    names = [text for text in seen.texts if text.startswith("class ")]
    # The rarest one first, and the one without objects last.
    assert names == [f"class {i}" for i in (*range(1, count), 0)]
    shown = Page(report_sections.errors(found)).texts
    assert ("Confusion of classes" in shown) == (count == 80)  # 1203 are too many to be read
    assert len(report_sections.classes(found)) < 1000 * (1 + count)


def test_images_that_are_missing_now(run, tmp_path):
    pairs = EvaluatedRun.load(str(run)).worst_pairs(2, 0.05)
    Path(pairs[0].file_name).unlink()
    (tmp_path / "worst_03.png").write_bytes(b"of an earlier analysis")
    drawn = draw_images(pairs, ["a", "b", "c"], str(tmp_path), "worst")
    assert [bool(item.file) for item in drawn] == [False, True]
    assert [path.name for path in tmp_path.glob("*.png")] == ["worst_02.png"]
    assert files_of(drawn) == f"{drawn[1].file}, 1 not drawn: {drawn[0].reason}"
    assert files_of([]) == "none"
    assert files_of([Drawn(pairs[0], "a/x_01.png"), Drawn(pairs[0], "a/x_02.png")]) == (
        "a/x_01.png to x_02.png"
    )
    seen = Page(report_sections.pictures(drawn, "The worst ones."))
    missed, false = pairs[0].errors
    caption = f"{Path(pairs[0].file_name).name}: {missed} missed, {false} false"
    assert seen.texts[:3] == ["The worst ones.", drawn[0].reason, caption]
    assert seen.tags.count("img") == 1
    assert Page(report_sections.pictures([], "The worst ones.")).texts == ["None."]


def test_what_was_trained_is_that_of_the_last_training(tmp_path):
    assert training_in_log(str(tmp_path / "log.txt")) == {}
    (tmp_path / "log.txt").write_text(LOG)
    assert training_in_log(str(tmp_path / "log.txt")) == {
        "command": "train_net.py --config-file a<b>.py x=1",
        "seed": "17",
        "Python": "3.11.7",
        "numpy": "2.4.6",
        "detectron2": "0.6",
    }


def test_settings_of_a_recipe(tmp_path):
    from detectron2.config import LazyConfig

    from brloss_d2.model_zoo import get_config

    LazyConfig.save(get_config("coco/atss_R_50_FPN_brs_1x"), str(tmp_path / "config.yaml"))
    found = settings_of(str(tmp_path / "config.yaml"))
    assert found["Model"] == "OneStageDetector" and found["Loss"] == "BucketedRankSortLoss"
    assert found["Training data"] == "coco_2017_train"
    assert found["Validation data"] == "coco_2017_val"
    assert found["Optimizer"] == "SGD" and found["Learning rate"] == "0.008"
    assert int(found["Iterations"]) > 1000 and found["Images per iteration"] == "16"


def test_curves_of_a_run_that_has_just_begun():
    seen = Page(report_sections.curves(TrainedRun("a", {}, None, "No metrics yet."), None))
    assert seen.texts == ["No metrics yet."] and "img" not in seen.tags
