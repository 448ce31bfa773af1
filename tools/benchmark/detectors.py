"""Iterations of whole detectors, and the share of them that their criteria take."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from benchmark.machine import synchronize
from benchmark.measure import MIB

_FIXED_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)
# Corners of the polygon inscribed in an object's box: an octagon.
_CORNERS = 8


class Detector:
    """A detector of a config with random weights, and its optimizer.

    Args:
        path: of the config.
        device: "cpu" or "cuda".
    """

    def __init__(self, path: Path, device: str):
        cfg = LazyConfig.load(str(path))
        self.name, self.device = path.stem, device
        self.model = instantiate(cfg.model).to(device).train()
        cfg.optimizer.params.model = self.model
        # Made to stay where it is: all iterations then cost alike.
        cfg.optimizer.lr = 0.0
        self.optimizer = instantiate(cfg.optimizer)

    @property
    def num_classes(self) -> int:
        return getattr(self.model, "roi_heads", self.model).num_classes

    def losses(self, batch: list[dict[str, Any]]) -> Tensor:
        return sum(self.model(batch).values())

    def step(self, batch: list[dict[str, Any]]) -> float:
        """Milliseconds of one training iteration."""
        synchronize(self.device)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.losses(batch).backward()
        self.optimizer.step()
        synchronize(self.device)
        return 1e3 * (time.perf_counter() - start)

    def calibrate(self, batch: list[dict[str, Any]]) -> None:
        """Give the norms with fixed statistics those of `batch`, which pretrained ones have."""
        norms = (m for m in self.model.modules() if isinstance(m, _FIXED_NORMS))
        with _before_each(norms, _take_statistics), torch.no_grad():
            self.losses(batch)

    def replay(self, batch: list[dict[str, Any]]) -> Callable[[], float]:
        """A function for the milliseconds of all criteria on what they meet in an iteration.

        Forward and backward, each on leaves of its own; the network is left out.
        """
        calls: list[tuple[nn.Module, Any]] = []

        def keep(module: nn.Module, inputs: tuple) -> None:
            calls.append((module, _as_leaves(inputs[0])))

        with _before_each(outer_criteria(self.model), keep), torch.no_grad():
            self.losses(batch)

        def run() -> float:
            synchronize(self.device)
            start = time.perf_counter()
            for module, matched in calls:
                torch.stack(list(module(matched).losses.values())).sum().backward()
            synchronize(self.device)
            return 1e3 * (time.perf_counter() - start)

        return run


def outer_criteria(module: nn.Module) -> Iterator[nn.Module]:
    """What takes matched predictions or masks, but no part of another criterion."""
    for child in module.children():
        # Told by its name, for criteria of boxes and masks share no base.
        if any(base.__name__.endswith("Criterion") for base in type(child).__mro__):
            yield child
        else:
            yield from outer_criteria(child)


def _as_leaves(matched: Any) -> Any:
    """A dataclass of tensors with its floating-point tensors as leaves that want gradients."""
    values = {f.name: getattr(matched, f.name) for f in dataclasses.fields(matched)}
    differentiable = {
        name: x.detach().clone().requires_grad_()
        for name, x in values.items()
        if isinstance(x, Tensor) and x.is_floating_point() and name.startswith(("logits", "pred_"))
    }
    return dataclasses.replace(matched, **differentiable)


@contextmanager
def _before_each(modules: Iterable[nn.Module], hook: Callable) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _take_statistics(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def random_batch(
    images: int, size: tuple[int, int], objects: int, num_classes: int, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Noise with made-up objects, as detectron2's models take it.

    Args:
        images: number of them.
        size: (height, width) in pixels.
        objects: in each image; sides log-uniform from 16 pixels to 60 % of the image's.
        num_classes: classes drawn from.
        seed: of the random numbers.
    """
    g = torch.Generator().manual_seed(seed)
    height, width = size
    extent = torch.tensor([width, height])
    batch = []
    for _ in range(images):
        sides = 16 * (0.6 * extent / 16) ** torch.rand(objects, 2, generator=g)
        corner = torch.rand(objects, 2, generator=g) * (extent - sides)
        instances = Instances(size)
        instances.gt_boxes = Boxes(torch.cat([corner, corner + sides], 1))
        instances.gt_classes = torch.randint(num_classes, (objects,), generator=g)
        instances.gt_masks = PolygonMasks([[p] for p in _octagons(corner, sides)])
        image = torch.randint(256, (3, height, width), generator=g, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": height, "width": width})
    return batch


def _octagons(corner: Tensor, sides: Tensor) -> list:
    angles = torch.arange(_CORNERS) * (2 * torch.pi / _CORNERS)
    circle = torch.stack([angles.cos(), angles.sin()], 1) / 2 + 0.5
    points = corner[:, None] + circle * sides[:, None]
    return list(points.flatten(1).double().numpy())


@dataclasses.dataclass(frozen=True)
class Timing:
    """One detector. Milliseconds of an iteration: median, 20 % and 80 % quantile.

    Attributes:
        ratio: median over that of the first detector of the comparison.
        criteria_ms: median of the criteria's part, forward and backward.
        peak_mib: of a GPU's memory, parameters and optimizer included.
    """

    name: str
    iteration_ms: float
    p20_ms: float
    p80_ms: float
    ratio: float
    criteria_ms: float
    peak_mib: float | None


def compare(
    paths: Sequence[Path],
    device: str,
    *,
    images: int,
    size: tuple[int, int],
    objects: int,
    rounds: int,
) -> list[Timing]:
    """Time iterations of several detectors in turn, all with the same images."""
    with EventStorage():
        runs = [_Run(path, device, images, size, objects) for path in paths]
        for _ in range(rounds):
            for run in runs:
                run.measure()
    return [run.timing(runs[0]) for run in runs]


class _Run:
    def __init__(
        self, path: Path, device: str, images: int, size: tuple[int, int], objects: int
    ) -> None:
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        self.detector = Detector(path, device)
        self.batch = random_batch(images, size, objects, self.detector.num_classes)
        self.detector.calibrate(self.batch)
        self.detector.step(self.batch)  # also to warm up
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
        self.steps.append(self.detector.step(self.batch))
        self.criteria.append(self.replay())

    def timing(self, first: "_Run") -> Timing:
        p20, median, p80 = np.quantile(self.steps, (0.2, 0.5, 0.8))
        return Timing(
            self.detector.name,
            iteration_ms=median,
            p20_ms=p20,
            p80_ms=p80,
            ratio=median / np.median(first.steps),
            criteria_ms=np.median(self.criteria),
            peak_mib=self.peak_mib,
        )
