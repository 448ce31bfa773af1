"""Notes about the images of a custom dataset, and its refusal before training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from brloss_d2.data import (
    CustomDataSummary,
    check_coco_json,
    check_custom_images,
    note_limits,
)
from brloss_d2.errors import InputError
from tests.helpers import coco_files as files


def dataset(folder: Path) -> CustomDataSummary:
    """Write 4 training and 3 validation images that all differ."""
    splits = {}
    for split, count in (("train", 4), ("val", 3)):
        content = files.content(images=count)
        path = files.write(folder / split, content)
        for record in content["images"]:
            level = record["id"] + 50 * (split == "val")
            pixels = np.full((files.HEIGHT, files.WIDTH), level, np.uint8)
            Image.fromarray(pixels).save(folder / split / record["file_name"])
        splits[split] = check_coco_json(path, str(folder / split), key=f"data.{split}")
    return CustomDataSummary(**splits)


def notes(summary: CustomDataSummary) -> list[str]:
    return [line for line in str(summary).splitlines() if line.startswith("Note")]


def test_good_images_have_no_notes(tmp_path: Path) -> None:
    summary = check_custom_images(dataset(tmp_path), training=True)
    assert notes(note_limits(summary, config({}))) == []


def test_batches_larger_than_the_data(tmp_path: Path) -> None:
    cfg = config({})
    cfg.dataloader.train = {"total_batch_size": 5}
    (note,) = notes(note_limits(dataset(tmp_path), cfg))
    assert "5 images per batch, of" in note


def test_validation_images_that_are_training_images(tmp_path: Path) -> None:
    summary = dataset(tmp_path)
    (tmp_path / "val" / "2.png").write_bytes((tmp_path / "train" / "4.png").read_bytes())
    (note,) = notes(check_custom_images(summary, training=True))
    assert note.startswith("Note: data.val: 1 of 3 images are in data.train too")


def test_copies_among_training_images(tmp_path: Path) -> None:
    summary = dataset(tmp_path)
    (tmp_path / "train" / "2.png").write_bytes((tmp_path / "train" / "4.png").read_bytes())
    (note,) = notes(check_custom_images(summary, training=True))
    assert note.startswith("Note: data.train: 1 of 4 images are copies of another")


def test_training_images_are_read_for_training(tmp_path: Path) -> None:
    summary = dataset(tmp_path)
    (tmp_path / "train" / "2.png").write_bytes(b"")
    assert check_custom_images(summary, training=False) == summary
    with pytest.raises(InputError, match=r"1 of the 4 images of data\.train cannot be used"):
        check_custom_images(summary, training=True)


def config(evaluator: Any, **model: Any) -> Any:
    return OmegaConf.create({"dataloader": {"evaluator": evaluator}, "model": {"head": model}})


@pytest.mark.parametrize(
    ("cfg", "keys"),
    [
        (config({}, max_detections=300), "raise dataloader.evaluator.max_dets_per_image."),
        (
            config({"max_dets_per_image": 300}, test_topk_per_image=100),
            "raise model.head.test_topk_per_image.",
        ),
        (config(None, max_detections=102), None),
    ],
)
def test_more_objects_than_detections(tmp_path: Path, cfg: Any, keys: str | None) -> None:
    content = files.content(images=2)
    content["annotations"] = [
        files.annotation(i, 1, box=[2 + i / 100, 3, 10, 8]) for i in range(1, 103)
    ]
    val = check_coco_json(files.write(tmp_path, content), str(tmp_path))
    found = notes(note_limits(CustomDataSummary(None, val), cfg))[1:]
    assert [note.endswith(keys or "") for note in found] == ([True] if keys else [])
