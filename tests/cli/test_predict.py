"""brloss-predict, in this process and as the program demo/demo.py, with a small detector."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from PIL import Image

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.cli.predict import main
from brloss_d2.prediction import Predictor
from tests.helpers.golden_models import load
from tests.helpers.golden_rcnn import detector, small_faster_rcnn

ROOT = Path(__file__).parents[2]
GOLDEN = "faster_brs"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained small Faster R-CNN, and the image it is trained on."""
    folder = tmp_path_factory.mktemp("run")
    cfg = small_faster_rcnn("brs")
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 187
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    trained = detector(load(GOLDEN))
    assert trained.state_dict().keys() == instantiate(cfg.model).state_dict().keys()
    Checkpointer(trained, str(folder)).save("model_best")
    Image.fromarray(load(GOLDEN).tensor("in/raw0").numpy()).save(folder / "0.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_detects_what_the_published_model_does(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = (
        *("--device", "cpu", "--config-file", run_folder / "config.yaml"),
        *("--weights", run_folder / "model_best.pth"),
        *("--input", run_folder / "broken.jpg", run_folder / "*.png"),
        *("--output", tmp_path / "out"),
    )
    assert main(list(map(str, arguments))) == 1
    printed = capsys.readouterr()
    assert printed.err.count("error:") == 1
    assert "error: Image file unreadable" in printed.err and "broken.jpg" in printed.err
    assert "note: without --score-threshold" in printed.err
    expected = load(GOLDEN).tensor("test0/scores").tolist()
    assert printed.out == f"{len(expected)} objects in 1 image, 1 unreadable: {tmp_path}/out\n"
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [r["score"] for r in results] == pytest.approx(expected, abs=1e-5)
    boxes = load(GOLDEN).tensor("test0/boxes")
    boxes[:, 2:] -= boxes[:, :2]
    assert [x for r in results for x in r["bbox"]] == pytest.approx(
        boxes.flatten().tolist(), abs=0.01
    )
    assert (tmp_path / "out/pictures/0.png").exists()


def test_ctrl_c_keeps_what_was_found(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    whole = Predictor.stream

    def interrupted(*arguments, **options):
        yield from whole(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "stream", interrupted)
    arguments = (
        *("--device", "cpu", "--config-file", run_folder / "config.yaml", "--no-pictures"),
        *("--weights", run_folder / "model_best.pth", "--input", run_folder / "0.png"),
        *("--output", tmp_path / "out"),
    )
    assert main(list(map(str, arguments))) == 130
    assert "Interrupted after 1 image: " in capsys.readouterr().err
    assert json.loads((tmp_path / "out/predictions.json").read_text())


def test_refuses_with_one_line(run_folder: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, ROOT / "demo/demo.py", "--device", "cpu", "--input", run_folder),
        *("--config-file", run_folder / "config.yaml", "--weights", tmp_path / "gone.pth"),
        *("--output", tmp_path / "out"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: Checkpoint missing")
    assert not (tmp_path / "out").exists()
