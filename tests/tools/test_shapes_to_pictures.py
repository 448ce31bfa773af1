"""From writing a dataset to the picture of its predictions: two programs."""

import json

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from brloss_d2.data import load_coco_dataset
from tools.draw_predictions import main as draw_predictions
from tools.make_shapes import main as make_shapes


@pytest.fixture
def shapes(tmp_path):
    folder = tmp_path / "shapes"
    arguments = ["--train", "2", "--val", "4", "--size", "48", "64", "--output", str(folder)]
    assert make_shapes(arguments) == 0
    return folder


@pytest.fixture
def run(tmp_path, shapes):
    """The output folder of an imaginary perfect detector."""
    truth = shapes / "annotations" / "instances_val.json"
    node = L(load_coco_dataset)(
        names="test_shapes", json_file=str(truth), image_root=str(shapes / "val")
    )
    cfg = OmegaConf.create(
        {"dataloader": {"test": {"dataset": node}}}, flags={"allow_objects": True}
    )
    keys = ("image_id", "category_id", "bbox")
    annotations = json.loads(truth.read_text())["annotations"]
    results = [{**{key: a[key] for key in keys}, "score": 0.75} for a in annotations]
    folder = tmp_path / "run"
    (folder / "inference").mkdir(parents=True)
    (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    (folder / "log.txt").touch()
    return folder


def test_make_shapes(tmp_path, capsys):
    folder = tmp_path / "shapes"
    arguments = ["--train", "2", "--val", "4", "--size", "48", "64", "--output", str(folder)]
    assert make_shapes(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Wrote {folder}\n")
    assert ["images", "2", "4"] in [line.split() for line in printed.split("\n")]
    assert make_shapes(arguments) == 0
    assert capsys.readouterr().out.startswith(f"Up to date: {folder}\n")
    assert make_shapes([*arguments, "--seed", "1"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {folder} has other parameters")
    assert make_shapes([*arguments, "--seed", "1", "--overwrite"]) == 0


def test_draw_predictions(run, capsys):
    capsys.readouterr()
    assert draw_predictions(["--output-dir", str(run), "--images", "2"]) == 0
    assert capsys.readouterr().out.split("\n") == [
        f"checkpoint: {run}/model_final.pth (missing)",
        f"log:        {run}/log.txt",
        f"picture:    {run}/predictions.png",
        "",
    ]
    assert (run / "predictions.png").exists()


def test_draw_predictions_elsewhere_with_a_threshold(run, tmp_path):
    arguments = ["--output-dir", str(run), "--output", str(tmp_path / "x.png")]
    assert draw_predictions([*arguments, "--score-threshold", "0.9"]) == 0
    assert (tmp_path / "x.png").exists()
    assert not (run / "predictions.png").exists()


def test_draw_predictions_fails_with_one_line(tmp_path, capsys, run):
    assert draw_predictions(["--output-dir", str(tmp_path / "nowhere")]) == 1
    (message,) = capsys.readouterr().err.strip().split("\n")
    assert message.startswith("error: ") and "config.yaml does not exist" in message
    assert draw_predictions(["--output-dir", str(run), "--output", "picture.xyz"]) == 1
    assert "picture.xyz" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [["--images", "0"], ["--score-threshold", "often"]])
def test_draw_predictions_refuses_bad_arguments(bad):
    with pytest.raises(SystemExit) as stop:
        draw_predictions(["--output-dir", "x", *bad])
    assert stop.value.code == 2
