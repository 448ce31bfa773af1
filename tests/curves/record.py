"""Loss curves of the quick configs, kept in curves.csv: `python -m tests.curves.record`.

The whole training loop, from annotations of shapes to the losses of each iteration: 64 x 80 pixels,
two images an iteration, one thread, one seed.
"""

import argparse
import csv
import os
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch

from brloss_d2.data import write_shapes
from brloss_d2.engine import main, run
from brloss_d2.engine.trainer import Trainer

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("curves.csv")
ITERATIONS = 200
HEIGHT, WIDTH = 64, 80


def configs() -> dict[str, Path]:
    """Return name -> config of every slim detector with its baseline, RS and BRS Loss."""
    folders = (ROOT / "configs" / "quick", ROOT / "projects/co_detr/configs/quick")
    files = [path for folder in folders for path in sorted(folder.glob("*_300it.py"))]
    return {path.stem.removesuffix("_300it"): path for path in files}


def machine() -> str:
    """Return what decides how sums are rounded: the release of torch and the processor."""
    processor = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        text = Path("/proc/cpuinfo").read_text()
        found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
        processor = found[1] if found else processor
    release = torch.__version__.partition("+")[0]
    return f"torch {release}, {processor}, {torch.backends.cpu.get_cpu_capability()}"


def record(config: Path, folder: Path, iterations: int) -> list[float]:
    """Return the total losses of the first iterations of a training of 200.

    Args:
        config: path of the config file.
        folder: folder for the data, if it has none yet, and for the run.
        iterations: number of iterations.
    """
    curve: list[float] = []

    def keep(trainer: Trainer, losses: dict[str, torch.Tensor], *_: object) -> None:
        curve.append(sum(loss.item() for loss in losses.values()))
        if len(curve) == iterations:
            trainer.stop("Recorded", finished=True)

    shapes = folder / "shapes"
    write_shapes(str(shapes), 16, 1, (HEIGHT, WIDTH), 0)
    options = [
        f"data.train={shapes}/annotations/instances_train.json",
        f"data.train_images={shapes}/train",
        f"train.output_dir={folder / config.stem}",
        f"train.max_iter={ITERATIONS}",
        f"data.short_side={HEIGHT}",
        *("data.batch_size=2", "dataloader.train.num_workers=0", "train.seed=1"),
        *("train.device=cpu", "train.num_threads=1", "train.show_data=False"),
    ]
    processes = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    command = {"config_file": str(config), "opts": options, "resume": False, "eval_only": False}
    with mock.patch.object(Trainer, "write_metrics", keep):
        run(main, argparse.Namespace(**command, **processes))
    return curve


def write(names: Sequence[str]) -> None:
    """Record curves and put each in the file; others stay if they are of the same machine."""
    recorded_on, curves = read() if FILE.exists() else ("", {})
    curves = curves if recorded_on == machine() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in configs().items():
            if name in names or not names or name not in curves:
                curves[name] = record(config, Path(folder), ITERATIONS)
                with FILE.open("w", newline="") as file:
                    file.write(f"# {machine()}\n")
                    rows = csv.writer(file, lineterminator="\n")
                    rows.writerow(curves)
                    rows.writerows(zip(*map(_texts, curves.values()), strict=True))


def read() -> tuple[str, dict[str, list[float]]]:
    """Return the machine of the file, and name -> total losses."""
    first, *lines = FILE.read_text().splitlines()
    names, *rows = csv.reader(lines)
    columns = zip(*rows, strict=True)
    curves = {n: [float(x) for x in column] for n, column in zip(names, columns, strict=True)}
    return first.removeprefix("# "), curves


def _texts(curve: Sequence[float]) -> list[str]:
    return [f"{loss:.7g}" for loss in curve]


if __name__ == "__main__":
    write(sys.argv[1:])
