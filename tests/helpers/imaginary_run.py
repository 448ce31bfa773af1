"""Output folder of an imaginary run: dataset of shapes, detections and metrics."""

import json
from pathlib import Path

import numpy as np
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from brloss_d2.data import load_coco_dataset, write_shapes


def write_run(folder: Path, *, scale: float = 0.1, seed: int = 0) -> Path:
    """Write a run whose detector finds most shapes, with scores up to `scale`; return `folder`."""
    shapes = folder / "shapes"
    write_shapes(shapes, train=1, val=12, size=(48, 64), seed=0)
    truth = shapes / "annotations" / "instances_val.json"
    node = L(load_coco_dataset)(
        names=f"test_{folder.name}", json_file=str(truth), image_root=str(shapes / "val")
    )
    cfg = OmegaConf.create(
        {"dataloader": {"test": {"dataset": node}}}, flags={"allow_objects": True}
    )
    (folder / "inference").mkdir()
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    results = _detections(json.loads(truth.read_text())["annotations"], scale, seed)
    (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    records = []
    for iteration in range(19, 100, 20):
        loss = scale + 10 / (iteration + 1)
        record = {"loss_rank": loss, "loss_box_reg": loss, "total_loss": 2 * loss}
        records.append({"iteration": iteration, **record})
    write_metrics(folder, records)
    return folder


def write_metrics(folder: Path, records: list[dict[str, float]]) -> None:
    """Write the metrics.json of a run, one record per line."""
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.json").write_text("\n".join(lines) + "\n")


def _detections(annotations: list[dict], scale: float, seed: int) -> list[dict]:
    """Return one detection near each object, and five wrong ones of lower scores."""
    rng = np.random.default_rng(seed)
    results = []
    for number, annotation in enumerate(annotations * 6):
        own = {key: annotation[key] for key in ("image_id", "category_id")}
        x, y, w, h = annotation["bbox"]
        wrong = number >= len(annotations)
        box = [x + w * (0.8 if wrong else rng.uniform(0, 0.25)), y, w, h]
        score = scale * rng.beta(2 if wrong else 5, 4 if wrong else 2)
        results.append({**own, "bbox": box, "score": score})
    return results
