"""tools/export.py: files in, a file out, messages."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image

from brloss_d2.checkpoint import Checkpointer
from tests.helpers.golden_models import load
from tests.helpers.golden_rcnn import detector, small_faster_rcnn
from tools import export


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a training with a compiled backbone leaves."""
    cfg = small_faster_rcnn("brs")
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 96
    cfg.train.compile = True
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    model = detector(load("faster_brs"))
    model.backbone.compile(backend="eager")
    Checkpointer(model, str(tmp_path)).save("model_final")
    Image.fromarray(load("faster_brs").tensor("in/raw0").numpy()).save(tmp_path / "0.png")
    return tmp_path


def options(folder: Path, sample: str = "0.png") -> list[str]:
    paths = {"--config-file": "config.yaml", "--weights": "model_final.pth", "--sample": sample}
    paths["--output"] = "a.ts"
    return ["--device", "cpu", *(t for k, v in paths.items() for t in (k, str(folder / v)))]


def test_torchscript(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert export.main([*options(run_folder), "--score-threshold", "0.05"]) == 0
    file = run_folder / "a.ts"
    assert capsys.readouterr().out == f"Wrote {file}. Outputs: boxes, labels, scores.\n"
    boxes, labels, scores = torch.jit.load(str(file))(torch.zeros(3, 70, 90, dtype=torch.uint8))
    assert boxes.shape == (len(labels), 4) and len(scores) == len(labels)


def test_refuses_with_one_line(run_folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert export.main(options(run_folder, sample="gone.png")) == 1
    assert capsys.readouterr().err.startswith("error: Image file missing")
    assert not (run_folder / "a.ts").exists()
