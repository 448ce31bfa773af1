r"""Measure how many images a second are read, mapped for training, and predicted.

    python benchmarks/throughput.py --images photos

1. `read`: `read_image`, and decoders of JPEG files in its place (Pillow with channels reversed by
   numpy as in detectron2, torchvision, OpenCV, simplejpeg if it is installed), with the largest
   difference of a pixel to Pillow's;
2. `load`: the training mapper of a config with each of them;
3. `predict`: `Predictor.stream`, as `demo.py` calls it, with threads that read ahead.

All ways are measured in turn. The first two count the time of the CPU, which other programs disturb
less; the third the time that passes. Writes a CSV file and prints a table.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data.detection_utils import convert_PIL_to_numpy
from tabulate import tabulate
from torchvision.io import ImageReadMode, decode_jpeg

from brloss_d2.data import images as reader
from brloss_d2.data import mapper as mapping
from brloss_d2.model_zoo import get_config
from brloss_d2.prediction import Predictor, find_images
from brloss_d2.prediction.categories import Categories
from support.machine import ROOT, commit, describe, versions

HEADERS = ["stage", "way", "images_per_s", "ms", "p20_ms", "p80_ms", "x_first", "difference"]


def by_numpy(file: str) -> np.ndarray:
    """Read an image by Pillow, its channels reversed by numpy."""
    with reader.opened_image(file) as image:
        return np.array(convert_PIL_to_numpy(reader.upright_8_bit(image), "BGR"))


def by_torchvision(file: str) -> np.ndarray:
    """Read a JPEG file by torchvision."""
    content = torch.frombuffer(bytearray(Path(file).read_bytes()), dtype=torch.uint8)
    pixels = decode_jpeg(content, ImageReadMode.RGB, apply_exif_orientation=True)
    return cv2.cvtColor(pixels.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)


def by_opencv(file: str) -> np.ndarray:
    """Read an image by OpenCV."""
    return np.asarray(cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR))


def by_simplejpeg(file: str) -> np.ndarray:
    """Read a JPEG file, upright or not, by simplejpeg."""
    import simplejpeg

    return simplejpeg.decode_jpeg(Path(file).read_bytes(), colorspace="BGR")


READERS: dict[str, Callable[[str], np.ndarray]] = {
    "read_image": lambda file: reader.read_image(file, "BGR"),
    "Pillow, numpy": by_numpy,
    "torchvision": by_torchvision,
    "OpenCV": by_opencv,
}
if find_spec("simplejpeg"):
    READERS["simplejpeg"] = by_simplejpeg


def measure(
    ways: dict[str, Callable[[str], Any]], files: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """Return the milliseconds of CPU time of each way for each round and file."""
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for file in files:
            for way, function in ways.items():
                start = time.process_time()
                function(file)
                if number:  # after a round that warms up
                    samples[way].append(1e3 * (time.process_time() - start))
    return samples


def mapped(mapper: Any, read: Callable[[str], np.ndarray]) -> Callable[[str], Any]:
    """Return a function that maps an image file by a mapper with another reader."""

    def call(file: str) -> Any:
        vars(mapping)["read_image"] = lambda path, image_format: read(path)
        return mapper({"file_name": file, "annotations": []})

    return call


def measure_prediction(
    predictor: Predictor, files: Sequence[str], workers: Sequence[int], rounds: int
) -> dict[str, list[float]]:
    """Return the milliseconds per image of each round with each number of workers."""
    samples: dict[str, list[float]] = {f"{number} workers": [] for number in workers}
    for _ in range(rounds):
        for number in workers:
            start = time.perf_counter()
            for _ in predictor.stream(files, batch_size=4, num_workers=number):
                pass
            milliseconds = 1e3 * (time.perf_counter() - start) / len(files)
            samples[f"{number} workers"].append(milliseconds)
    return samples


def rows_of(
    stage: str, samples: dict[str, list[float]], differences: dict[str, int] | None = None
) -> list[list[Any]]:
    """Return a row of the table per way, relative to the first."""
    first = np.median(next(iter(samples.values())))
    rows = []
    for way, milliseconds in samples.items():
        p20, median, p80 = np.quantile(milliseconds, (0.2, 0.5, 0.8))
        times = [f"{x:.4g}" for x in (1e3 / median, median, p20, p80, median / first)]
        rows.append([stage, way, *times, "" if differences is None else differences[way]])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    option = parser.add_argument
    option("--images", nargs="+", required=True, help="JPEG files, folders or patterns")
    option("--loader", default="coco/atss_R_50_FPN_rs_1x", help="config whose mapper loads images")
    option("--model", default="quick/atss_R_18_FPN_rs_300it", help="config that predicts")
    option("--most", type=int, default=24, help="number of images, evenly chosen")
    option("--rounds", type=int, default=7, help="rounds over the images")
    option("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="threads that read ahead")
    option("--output", type=Path, default=ROOT / "docs/benchmarks/cpu_throughput.csv", help="CSV")
    args = parser.parse_args(argv)
    files = [file for file in find_images(args.images) if file.lower().endswith((".jpg", ".jpeg"))]
    if not files:
        parser.error("--images has no JPEG files")
    files = files[:: -(-len(files) // args.most)]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    exact = {file: READERS["Pillow, numpy"](file).astype(int) for file in files}
    difference = {
        way: max(int(np.abs(read(file) - exact[file]).max()) for file in files)
        for way, read in READERS.items()
    }
    rows = rows_of("read", measure(READERS, files, args.rounds), difference)
    loader = instantiate(get_config(args.loader).dataloader.train.mapper)
    ways = {way: mapped(loader, read) for way, read in READERS.items()}
    read_image = mapping.read_image
    try:
        rows += rows_of("load", measure(ways, files, args.rounds))
    finally:
        mapping.read_image = read_image
    cfg = get_config(args.model)
    model, mapper = instantiate(cfg.model).eval(), instantiate(cfg.dataloader.test.mapper)
    predictor = Predictor(model, mapper, Categories.unnamed(cfg.model.num_classes))
    rows += rows_of("predict", measure_prediction(predictor, files, args.workers, args.rounds))
    print(tabulate(rows, HEADERS, disable_numparse=True))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    stamp = {"device": describe("cpu"), "versions": versions(), "commit": commit()}
    stamp |= {
        "images": str(len(files)),
        "rounds": str(args.rounds),
        "loader": args.loader,
        "model": args.model,
    }
    with args.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([[*stamp, *HEADERS], *([*stamp.values(), *row] for row in rows)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
