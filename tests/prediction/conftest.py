"""A detector that finds the bright squares in dark images, exactly, and a run folder of it."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import build_detection_test_loader
from detectron2.data import transforms as T
from omegaconf import OmegaConf
from PIL import Image

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.data import DetectionMapper, load_coco_dataset
from brloss_d2.engine import train_defaults
from tests.helpers.bright_squares import BrightSquares, square_image


@pytest.fixture
def square(tmp_path: Path) -> Path:
    """A dark image of 48 x 32 pixels with a bright square."""
    file = tmp_path / "square.png"
    Image.fromarray(square_image()).save(file)
    return file


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What a training leaves: config.yaml and model_final.pth; the data are there, too."""
    folder = tmp_path / "run"
    folder.mkdir()
    truth = tmp_path / "truth.json"
    categories = [{"id": 4, "name": "nut"}, {"id": 9, "name": "bolt"}]
    truth.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    node = L(load_coco_dataset)(names="own", json_file=str(truth), image_root=str(tmp_path))
    mapper = L(DetectionMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=200)],
        image_format="BGR",
    )
    cfg = OmegaConf.create(
        {
            "model": L(BrightSquares)(num_classes=2, score_thresh=0.5),
            "optimizer": {},
            "lr_multiplier": {},
            "dataloader": {"test": L(build_detection_test_loader)(dataset=node, mapper=mapper)},
            "train": train_defaults(),
        },
        flags={"allow_objects": True},
    )
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    model = BrightSquares(num_classes=2, score_thresh=0.5)
    torch.nn.init.constant_(model.scale, 1.0)  # as trained
    Checkpointer(model, str(folder)).save("model_final", iteration=3)
    return folder
