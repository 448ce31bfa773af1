import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from brloss_d2.engine import main, run
from tests.helpers import toy


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config file of the toy model; its runs write to `tmp_path / "out"` by default."""
    path = tmp_path / "toy_config.py"
    out = f'train["output_dir"] = {str(tmp_path / "out")!r}\n'
    path.write_text(toy.CONFIG + out, encoding="utf-8")
    return path


@pytest.fixture
def train_net(config: Path) -> Callable[..., Path]:
    """Do what `train_net.py --config-file CONFIG options key=value...` does, in this process."""

    def call(
        *opts: str, file: Path = config, resume: bool = False, eval_only: bool = False
    ) -> Path:
        args = argparse.Namespace(
            config_file=str(file),
            opts=list(opts),
            resume=resume,
            eval_only=eval_only,
            num_gpus=1,
            num_machines=1,
            machine_rank=0,
            dist_url="auto",
        )
        run(main, args)
        return config.parent / "out"

    return call


@pytest.fixture
def coco(tmp_path: Path) -> list[str]:
    """Options for a custom dataset: an image with one box, 2 classes."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "nut"}],
    }
    file = tmp_path / "a.json"
    file.write_text(json.dumps(data))
    return [f"data.train={file}", f"data.val={file}"]
