r"""Time how long whole detectors take to detect objects in an image.

    python benchmarks/inference.py \
        --configs configs/coco/mask_rcnn_R_50_FPN_rs_1x.py configs/coco/yolact_R_50_rs_55e.py

The configs are timed in turn and compared with the first, on noise and with random weights. The
thresholds of the scores are lowered until each detector has as many objects as it may, so that
suppression and masks take as long as they can. Reading and resizing of images is excluded. Appends
to a CSV file and prints a table; see docs/benchmarks/README.md.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from brloss_d2.modeling import SOLOv2
from detectors import Batch, Detector, random_batch, with_bitmaps
from support.machine import synchronize
from support.timed_configs import compare, parse, parser_of_configs

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

    def cells(self) -> list[Any]:
        """Return the cells of the printed table."""
        times = (self.image_ms, self.p20_ms, self.p80_ms)
        return [self.name, *(f"{ms:.1f}" for ms in times), f"{self.ratio:.3f}", self.detections]


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
    parser = parser_of_configs(__doc__.split("\n")[0], (550, 550), "timed images per config")
    args = parse(parser, argv, QUICK, "{device}_inference.csv")
    height, width = args.size
    compare(
        args,
        lambda path: TimedDetector(path, args.device, (height, width)),
        HEADERS,
        {"height": height, "width": width},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
