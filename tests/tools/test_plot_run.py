"""tools/plot_run.py, from the files of runs to the picture."""

import json

import numpy as np
import pytest
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.plotting.figures import new_figure
from brloss_d2.plotting.run_plots import TrainedRun, draw_ap, read_metrics
from tests.helpers.imaginary_run import write_metrics, write_run
from tools import plot_run


@pytest.fixture
def run(tmp_path):
    (tmp_path / "brs").mkdir()
    return write_run(tmp_path / "brs")


def size_of(path):
    with Image.open(path) as image:
        image.verify()
        return image.size


def test_one_run(run, capsys):
    assert plot_run.main([str(run)]) == 0
    assert capsys.readouterr().out == f"picture: {run}/run.png\n"
    assert min(size_of(run / "run.png")) > 500
    assert not list(run.glob("*.tmp"))


def test_several_runs(run, tmp_path, capsys):
    """One was evaluated several times, one never."""
    (tmp_path / "deep" / "brs").mkdir(parents=True)
    other = tmp_path / "deep" / "brs"
    evaluations = [{"iteration": i, "bbox/AP": float(i), "segm/AP": i / 2} for i in (40, 60, 80)]
    losses = [{"iteration": i, "total_loss": 1.0, "loss_cls": 1.0} for i in (19, 39)]
    write_metrics(other, [*losses, *evaluations])
    picture = tmp_path / "new" / "runs.png"
    assert plot_run.main([str(run), str(other), "--output", str(picture)]) == 0
    name = f"{other.parent.name}/brs"
    printed = capsys.readouterr().out
    assert printed.startswith(f"{name}: no scores: {other}/config.yaml does not exist")
    assert printed.endswith(f"\npicture: {picture}\n")
    assert min(size_of(picture)) > 500


def test_two_runs_with_one_evaluation_each(run, tmp_path):
    """A name with dollar signs is no formula."""
    (tmp_path / "$c{e$").mkdir()
    runs = [run, write_run(tmp_path / "$c{e$", scale=1.0)]
    for number, folder in enumerate(runs):
        with open(folder / "metrics.json", "a") as file:
            file.write(json.dumps({"iteration": 100, "bbox/AP": 40.0 + number}) + "\n")
    assert plot_run.main([*map(str, runs), "--output", str(tmp_path / "x.png")]) == 0
    assert min(size_of(tmp_path / "x.png")) > 500


def test_the_metrics(tmp_path):
    """A resumed run repeats iterations; NaN but for AP and text are no points; half a last line."""
    path = tmp_path / "metrics.json"
    lines = [
        '{"iteration": 19, "total_loss": 3.0, "name": "x"}',
        '{"iteration": 39, "total_loss": 2.0}',
        '{"iteration": 59, "total_loss": NaN}',
        '{"iteration": 19, "total_loss": 2.5}',
        '{"iteration": 100, "bbox/AP": 40.0}',
        '{"iteration": 110, "bbox/AP": NaN, "bbox/AP50": NaN}',
        '{"iteration": 119, "tot',
    ]
    path.write_text("\n".join(lines))
    metrics = read_metrics(str(path))
    assert set(metrics) == {"total_loss", "bbox/AP"}
    np.testing.assert_array_equal(metrics["total_loss"], [[19, 39], [2.5, 2.0]])
    np.testing.assert_array_equal(metrics["bbox/AP"], [[100, 110], [40, np.nan]])


@pytest.mark.parametrize("before", [[], [{"iteration": 19, "bbox/AP": 40.0}]])
def test_an_evaluation_that_found_nothing(tmp_path, before):
    write_metrics(tmp_path, [*before, {"iteration": 39, "bbox/AP": np.nan}])
    axes = new_figure(4, 3).subplots()
    draw_ap(axes, [TrainedRun("a", read_metrics(str(tmp_path / "metrics.json")), None)])
    texts = [text.get_text() for text in axes.texts]
    texts += axes.get_legend_handles_labels()[1]
    (text,) = texts
    assert "nothing found" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("", "no metrics yet"),
        ("{", "line 1"),
        ('[1]\n{"iteration": 1, "x": 1}\n', "line 1"),
        ('{"x": 1}\n{"iteration": 1, "x": 1}\n', "line 1"),
    ],
)
def test_damaged_metrics(tmp_path, text, message):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_metrics(str(tmp_path / "metrics.json"))


def test_the_scores_are_those_of_the_last_evaluation(run):
    loaded = TrainedRun.load(str(run), "brs")
    results = json.loads((run / "inference" / "coco_instances_results.json").read_text())
    assert sorted(loaded.matches.scores) == sorted(result["score"] for result in results)
    assert 0 < loaded.matches.correct.sum() < len(results)
    (run / "inference" / "coco_instances_results.json").write_text("[]")
    without = TrainedRun.load(str(run), "brs")
    assert without.matches is None and "no detections" in without.reason
    assert plot_run.main([str(run)]) == 0


def test_mistakes_end_in_one_line(run, tmp_path, capsys):
    for arguments, message in (
        ([str(tmp_path / "nowhere")], "metrics.json does not exist"),
        ([str(run), str(run)], "named twice"),
        ([str(run), "--output", "x.xyz"], "x.xyz"),
    ):
        assert plot_run.main(arguments) == 1
        (line,) = capsys.readouterr().err.strip().split("\n")
        assert line.startswith("error: ") and message in line
