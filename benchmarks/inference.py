r"""Time how long whole detectors take to detect objects in an image.

    python benchmarks/inference.py \
        --configs configs/coco/mask_rcnn_R_50_FPN_rs_1x.py configs/coco/yolact_R_50_rs_55e.py

The configs are timed in turn and compared with the first, on noise and with random weights. The
thresholds of the scores are lowered until each detector has as many objects as it may, so that
suppression and masks take as long as they can. Reading and resizing of images is excluded. Appends
to a CSV file and prints a table; see docs/benchmarks/README.md.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn

from brloss_d2.modeling import SOLOv2
from detectors import Batch, Detector, append_rows, random_batch, with_bitmaps
from support.machine import ROOT, commit, describe, synchronize, versions

QUICK = {"size": [96, 128], "rounds": 2}
HEADERS = ("config", "image ms", "20 %", "80 %", "x first", "detections")
_OBJECTS = 7  # in the image that sets the statistics of norms


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time of one detector.

    Attributes:
        name: file name of the config, without suffix.
        image_ms: median time of an image in milliseconds.
        p20_ms: 20 % quantile of that time.
        p80_ms: 80 % quantile of that time.
        ratio: `image_ms` divided by that of the first detector.
        detections: number of detections in the image.
    """

    name: str
    image_ms: float
    p20_ms: float
    p80_ms: float
    ratio: float
    detections: int


class TimedDetector:
    """Detector that is ready to be timed on an image, and the samples so far.

    Args:
        path: path of the config.
        device: "cpu" or "cuda".
        size: (height, width) of the image in pixels.
    """

    def __init__(self, path: Path, device: str, size: tuple[int, int]) -> None:
        detector = Detector(path, device)
        self.name, self.device = detector.name, device
        self.batch = with_bitmaps(random_batch(1, size, _OBJECTS, detector.num_classes))
        detector.calibrate(self.batch)
        self.model = detector.model.eval()
        lower_thresholds(self.model, self.batch)
        with torch.inference_mode():
            self.detections = len(self.model(self.batch)[0]["instances"])  # warm-up
        self.samples: list[float] = []

    @torch.inference_mode()
    def measure(self) -> None:
        """Take one sample."""
        synchronize(self.device)
        start = time.perf_counter()
        self.model(self.batch)
        synchronize(self.device)
        self.samples.append(1e3 * (time.perf_counter() - start))

    def timing(self, first: "TimedDetector") -> Timing:
        """Summarize the samples, relative to the first detector."""
        p20, median, p80 = np.quantile(self.samples, (0.2, 0.5, 0.8))
        ratio = median / np.median(first.samples)
        return Timing(self.name, median, p20, p80, ratio, self.detections)


@torch.inference_mode()
def lower_thresholds(model: nn.Module, batch: Batch) -> None:
    """Let detections of any score pass, in SOLOv2 those of as many cells as it compares."""
    parts = [*model.modules(), getattr(model, "postprocessor", None)]
    parts.append(getattr(parts[-1], "select", None))
    for part in parts:
        for name in ("score_thresh", "test_score_thresh", "final_thresh"):
            if hasattr(part, name):
                setattr(part, name, 0.0)
    if isinstance(model, SOLOv2):
        logits = model.outputs(model.preprocess_image(batch).tensor).grid.logits
        scores = model.criterion.predict_probs(torch.cat([x.flatten(2) for x in logits], 2))
        best = scores.flatten().topk(model.postprocessor.max_candidates).values
        model.postprocessor.score_thresh = float(best[-1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    stamp = {"device": describe(args.device), "versions": versions(), "commit": commit()}
    print(f"{stamp['device']}\n{stamp['versions']}, commit {stamp['commit']}", flush=True)
    size = tuple(args.size)
    with EventStorage():
        detectors = [TimedDetector(path, args.device, size) for path in args.configs]
    for _ in range(args.rounds):
        for detector in detectors:
            detector.measure()
    timings = [detector.timing(detectors[0]) for detector in detectors]
    cells = [
        (
            t.name,
            *(f"{ms:.1f}" for ms in (t.image_ms, t.p20_ms, t.p80_ms)),
            f"{t.ratio:.3f}",
            t.detections,
        )
        for t in timings
    ]
    print(tabulate(cells, HEADERS, disable_numparse=True))
    stamp |= {"height": size[0], "width": size[1], "rounds": args.rounds}
    append_rows(args.output, stamp, timings)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=formatter)
    option = parser.add_argument
    option("--configs", type=Path, nargs="+", required=True, help="the first is the reference")
    option("--size", type=int, nargs=2, default=[550, 550], help="height and width in pixels")
    option("--rounds", type=int, default=10, help="timed images per config")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    option("--device", choices=["cpu", "cuda"], default=device, help="device")
    option("--threads", type=int, help="CPU threads; all if not given")
    option("--output", type=Path, help="CSV file; docs/benchmarks/<device>_inference.csv if absent")
    option("--quick", action="store_true", help="one tiny image, results to output/")
    args = parser.parse_args(argv)
    folder = ROOT / "docs" / "benchmarks"
    if args.quick:
        vars(args).update(QUICK)
        folder = ROOT / "output"
    args.output = args.output or folder / f"{args.device}_inference.csv"
    return args


if __name__ == "__main__":
    sys.exit(main())
