"""Time training iterations of whole detectors, and the share of them that the losses take.

    python benchmarks/detectors.py --configs configs/coco/faster_rcnn_R_50_FPN_{ce,rs}_1x.py

The configs are timed in turn and compared with the first, on noise images with random objects and
random weights: no data are needed, and the result is the cost of an iteration early in training,
without data loading. Appends to a CSV file and prints a table; see docs/benchmarks/README.md.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from torch import Tensor, nn

from support.machine import MIB, synchronize
from support.timed_configs import compare, parse, parser_of_configs

Batch = list[dict[str, Any]]
Call = tuple[nn.Module, Any]

QUICK = {"images": 1, "size": [96, 128], "objects": 3, "rounds": 2}
HEADERS = ("config", "iteration ms", "20 %", "80 %", "x first", "losses ms", "share", "peak MiB")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time and memory of one detector.

    Attributes:
        name: file name of the config, without suffix.
        iteration_ms: median time of an iteration in milliseconds.
        p20_ms: 20 % quantile of that time.
        p80_ms: 80 % quantile of that time.
        ratio: `iteration_ms` divided by that of the first detector.
        criteria_ms: median time of all criteria in milliseconds, forward and backward.
        peak_mib: peak GPU memory in MiB, parameters and optimizer included; None on a CPU.
    """

    name: str
    iteration_ms: float
    p20_ms: float
    p80_ms: float
    ratio: float
    criteria_ms: float
    peak_mib: float | None

    def cells(self) -> list[Any]:
        """Return the cells of the printed table."""
        return [
            self.name,
            *(f"{ms:.1f}" for ms in (self.iteration_ms, self.p20_ms, self.p80_ms)),
            f"{self.ratio:.3f}",
            f"{self.criteria_ms:.1f}",
            f"{self.criteria_ms / self.iteration_ms:.1%}",
            self.peak_mib and round(self.peak_mib),
        ]


class Detector:
    """Detector of a config with random weights, and its optimizer.

    Args:
        path: path of the config.
        device: "cpu" or "cuda".
        amp: whether to train with automatic mixed precision, in bfloat16.
    """

    def __init__(self, path: Path, device: str, *, amp: bool = False) -> None:
        cfg = LazyConfig.load(str(path))
        self.name = f"{path.stem}, bfloat16" if amp else path.stem
        self.device, self.amp = device, amp
        self.model = instantiate(cfg.model).to(device).train()
        self.num_classes: int = getattr(self.model, "roi_heads", self.model).num_classes
        cfg.optimizer.params.model = self.model
        cfg.optimizer.lr = 0.0  # the weights stay, so that all iterations cost the same
        self.optimizer = instantiate(cfg.optimizer)

    def total_loss(self, batch: Batch) -> Tensor:
        """Sum of the losses of a batch, ()."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            return sum(self.model(batch).values())

    def step(self, batch: Batch) -> float:
        """Run one training iteration; return its milliseconds."""
        synchronize(self.device)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.total_loss(batch).backward()
        self.optimizer.step()
        synchronize(self.device)
        return 1e3 * (time.perf_counter() - start)

    def calibrate(self, batch: Batch) -> None:
        """Set the statistics of the norms that never update them to those of `batch`.

        With those of random weights, activations would grow from layer to layer.
        """
        kinds = (nn.BatchNorm2d, FrozenBatchNorm2d)
        norms = [module for module in self.model.modules() if isinstance(module, kinds)]
        with call_before(norms, _use_statistics_of_input), torch.no_grad():
            self.total_loss(batch)

    def replay(self, batch: Batch) -> Callable[[], float]:
        """Record what the criteria get in an iteration.

        Args:
            batch: images with ground truth.

        Returns:
            Function that runs all criteria on it, forward and backward, without the network, and
            returns the milliseconds.
        """
        calls: list[Call] = []
        with call_before(outer_criteria(self.model), partial(_record, calls)), torch.no_grad():
            self.total_loss(batch)
        return partial(_time_criteria, calls, self.device)


def outer_criteria(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the criteria in a module, except those that are part of another criterion."""
    for child in module.children():
        # Found by name: criteria of boxes and of masks have no common base class.
        if any(base.__name__.endswith("Criterion") for base in type(child).__mro__):
            yield child
        else:
            yield from outer_criteria(child)


@contextmanager
def call_before(modules: Iterable[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    """Call `hook(module, inputs)` before each forward pass of the modules."""
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _use_statistics_of_input(norm: Any, inputs: tuple[Tensor]) -> None:
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _record(calls: list[Call], criterion: nn.Module, inputs: tuple[Any]) -> None:
    """Append a call to `calls`, with logits and predictions as leaves that need a gradient."""
    (matched,) = inputs
    leaves = {}
    for field in dataclasses.fields(matched):
        value = getattr(matched, field.name)
        is_prediction = field.name.startswith(("logits", "pred_"))
        if is_prediction and isinstance(value, Tensor) and value.is_floating_point():
            leaves[field.name] = value.detach().clone().requires_grad_()
    calls.append((criterion, dataclasses.replace(matched, **leaves)))


def _time_criteria(calls: list[Call], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    for criterion, matched in calls:
        torch.stack(list(criterion(matched).losses.values())).sum().backward()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def random_batch(
    images: int, size: tuple[int, int], objects: int, num_classes: int, *, seed: int = 0
) -> Batch:
    """Draw noise images with random octagonal objects, in the format of detectron2's models.

    Args:
        images: number of images.
        size: (height, width) in pixels.
        objects: number of objects per image; sides are log-uniform between 16 pixels and 60 % of
            the image side.
        num_classes: number of classes.
        seed: seed of the random numbers.

    Returns:
        One dict per image.
    """
    g = torch.Generator().manual_seed(seed)
    height, width = size
    extent = torch.tensor([width, height])
    angles = torch.arange(8) * (2 * torch.pi / 8)
    octagon = torch.stack([angles.cos(), angles.sin()], 1) / 2 + 0.5  # in the unit square
    batch = []
    for _ in range(images):
        sides = 16 * (0.6 * extent / 16) ** torch.rand(objects, 2, generator=g)
        corner = torch.rand(objects, 2, generator=g) * (extent - sides)
        polygons = (corner[:, None] + octagon * sides[:, None]).flatten(1).double().numpy()
        instances = Instances(size)
        instances.gt_boxes = Boxes(torch.cat([corner, corner + sides], 1))
        instances.gt_classes = torch.randint(num_classes, (objects,), generator=g)
        instances.gt_masks = PolygonMasks([[polygon] for polygon in polygons])
        image = torch.randint(256, (3, height, width), generator=g, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": height, "width": width})
    return batch


def with_bitmaps(batch: Batch) -> Batch:
    """Turn the outlines of objects into bitmaps, as the configs read them, in place."""
    for inputs in batch:
        objects = inputs["instances"]
        size = objects.image_size
        objects.gt_masks = BitMasks.from_polygon_masks(objects.gt_masks, *size)
    return batch


class TimedDetector:
    """Detector that is ready to be timed on its batch, and the samples so far.

    Args:
        path: path of the config.
        device: "cpu" or "cuda".
        images: number of images per iteration.
        size: (height, width) in pixels.
        objects: number of objects per image.
        amp: whether to train with automatic mixed precision, in bfloat16.
    """

    def __init__(
        self,
        path: Path,
        device: str,
        images: int,
        size: tuple[int, int],
        objects: int,
        *,
        amp: bool = False,
    ) -> None:
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        self.detector = Detector(path, device, amp=amp)
        self.batch = with_bitmaps(random_batch(images, size, objects, self.detector.num_classes))
        self.detector.calibrate(self.batch)
        self.detector.step(self.batch)  # warm-up
        self.peak_mib = None
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.detector.step(self.batch)
            self.peak_mib = (torch.cuda.max_memory_allocated() - before) / MIB
        self.replay = self.detector.replay(self.batch)
        self.replay()
        self.steps: list[float] = []
        self.criteria: list[float] = []

    def measure(self) -> None:
        """Take one sample of an iteration and one of its criteria."""
        self.steps.append(self.detector.step(self.batch))
        self.criteria.append(self.replay())

    def timing(self, first: "TimedDetector") -> Timing:
        """Summarize the samples, relative to the first detector."""
        p20, median, p80 = np.quantile(self.steps, (0.2, 0.5, 0.8))
        ratio = median / np.median(first.steps)
        criteria_ms = float(np.median(self.criteria))
        return Timing(self.detector.name, median, p20, p80, ratio, criteria_ms, self.peak_mib)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = parser_of_configs(__doc__.split("\n")[0], (800, 1333), "timed iterations per config")
    parser.add_argument("--images", type=int, default=4, help="images per iteration")
    parser.add_argument("--objects", type=int, default=7, help="objects per image")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision, bfloat16")
    args = parse(parser, argv, QUICK, "{device}_detectors.csv")
    height, width = args.size
    compare(
        args,
        lambda path: TimedDetector(
            path, args.device, args.images, (height, width), args.objects, amp=args.amp
        ),
        HEADERS,
        {"images": args.images, "height": height, "width": width, "objects": args.objects},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
