"""train_net.py on miniatures of COCO, LVIS v1 and Cityscapes under detectron2's built-in names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brloss_d2.data import write_miniatures
from tests.helpers.programs import LOG, Programs, train_net_words

ROOT = Path(__file__).parents[2]
CONFIG = """
from detectron2.config import LazyConfig

_tiny = LazyConfig.load({tiny!r})
model, optimizer, lr_multiplier, train = (
    _tiny[key] for key in ("model", "optimizer", "lr_multiplier", "train")
)
dataloader = LazyConfig.load({data!r}).dataloader
for _loader, _short_edge in ((dataloader.train, (64, 96)), (dataloader.test, 96)):
    _loader.num_workers = 0
    _loader.mapper.augmentations[0].short_edge_length = _short_edge
dataloader.train.total_batch_size = 2
model.roi_heads.num_classes = {classes}
train.output_dir = {out!r}
"""
CLASSES = {"coco": 80, "lvis_v1": 1203, "cityscapes": 8}
AP = ("AP", "AP50")
LRP = (*AP, "oLRP", "oLRP_FN")
FEDERATED = (*LRP, "APr", "APc", "APf")
EXPECTED = {
    "coco": {"bbox": (*LRP, "AP75", "APs"), "segm": LRP},
    "lvis_v1": {"bbox": FEDERATED, "segm": FEDERATED},
    "cityscapes": {"bbox": LRP, "segm": LRP, "segm_cityscapes": AP},
}


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    pytest.importorskip("cityscapesscripts")
    root = tmp_path_factory.mktemp("datasets") / "miniatures"
    write_miniatures(root, train=4, val=3)
    return root


def write_config(folder, dataset):
    """Write a config file of a tiny model on a dataset, which trains in `folder / "out"`."""
    data = ROOT / "configs" / "common" / "data" / f"{dataset}.py"
    text = CONFIG.format(
        tiny=str(ROOT / "tests" / "helpers" / "tiny_mask_rcnn.py"),
        data=str(data),
        classes=CLASSES[dataset],
        out=str(folder / "out"),
    )
    config = folder / "config.py"
    config.write_text(text)
    return config


@pytest.mark.parametrize(
    ("dataset", "processes"), [("coco", 1), ("lvis_v1", 1), ("cityscapes", 1), ("cityscapes", 2)]
)
def test_train_and_evaluate(programs: Programs, miniatures, tmp_path, dataset, processes):
    if dataset == "lvis_v1":
        pytest.importorskip("lvis")
    masks = "dataloader.train.mapper.use_instance_mask=True"  # COCO's default is boxes alone
    # DETECTRON2_DATASETS of these programs.
    (tmp_path / "datasets").symlink_to(miniatures.parent)
    options = ("--num-gpus", str(processes), masks)
    printed = programs.train_net(*options, config=write_config(tmp_path, dataset))
    lines = (tmp_path / "out" / "metrics.json").read_text().splitlines()
    metrics = {}
    for line in lines:
        metrics.update(json.loads(line))
    assert metrics["loss_mask"] > 0 and metrics["iteration"] == 3
    for task, names in EXPECTED[dataset].items():
        for name in names:
            assert 0 <= metrics[f"{task}/{name}"] <= 100, (task, name)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert f"{'LVIS' if dataset == 'lvis_v1' else 'COCO-style'} evaluation by " in log
    columns = printed[printed.rindex("Results:") :].splitlines()[1].split()
    assert set(columns) >= set(EXPECTED[dataset])
    left = {p.name for p in tmp_path.iterdir()} - {"datasets", LOG}
    assert left == {"config.py", "out"}, "nothing left behind"


def error_of(run) -> str:
    assert run.returncode == 1
    assert "Traceback" not in run.stderr + run.stdout
    assert run.stderr.count("error: ") == 1
    return run.stderr.partition("error: ")[2]


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_a_wrong_folder_is_told_before_training(tmp_path, root):
    """In a Python of its own, since detectron2 reads the variable when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
    environment |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    if root is not None:
        environment["DETECTRON2_DATASETS"] = root
    words = train_net_words(config=write_config(tmp_path, "cityscapes"))
    command = [sys.executable, *words]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    message = error_of(run)
    setting = "it is nowhere" if root else "it is not set"
    folder = tmp_path / (root or "datasets") / "cityscapes" / "leftImg8bit" / "train"
    assert f"looked for {folder}" in message and setting in message
    assert not (tmp_path / "out").exists()
