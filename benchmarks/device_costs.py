r"""Count what losses and detectors cost a GPU beside arithmetic: launches and waits of the host.

    %(prog)s --output docs/benchmarks/device_costs.csv

No GPU is needed: tensors are on a pretend device, see support/pretend_device.py. A row is a loss,
forward and backward at a number of positives among 20,000 logits, or a config: a training step and
an inference of two images, without the optimizer. The tests compare this file with new counts. A
Markdown file of the same name has the table with ratios to the baselines.
"""

import argparse
import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from brloss_d2 import losses
from brloss_d2.model_zoo import get_config, list_configs
from brloss_d2.ops import use_backend
from brloss_d2.utils.config_nodes import learns_masks, walk_nodes
from support.pretend_device import DEVICE, move, pretend_device
from support.problems import SYNTHETIC, draw

POSITIVES = (50, 2000, 8000)
_FUSED_POSITIVES = (50, 2000)  # more take the interpreter too long, and no more launches
_LOGITS = 20_000
_LOSSES: dict[str, Callable[..., dict[str, Tensor]]] = {
    "rs": losses.rank_sort_loss,
    "brs": losses.bucketed_rank_sort_loss,
    "ap": losses.ap_loss,
    "bap": losses.bucketed_ap_loss,
    "alrp": losses.alrp_loss,
}
_SIZES = ((96, 128), (80, 112))
_OBJECTS = (3, 2)


class Costs(NamedTuple):
    """One row: a loss (without inference) or a config.

    Attributes:
        name: name of the loss and number of positives, or name of the config.
        launches: launched operators of a training step.
        syncs: waits of the host in a training step.
        inference_launches: launched operators of an inference.
        inference_syncs: waits of the host in an inference.
    """

    name: str
    launches: int
    syncs: int
    inference_launches: int = 0
    inference_syncs: int = 0


def names() -> list[str]:
    """Return the names of all rows."""
    rows = [f"{name} {count}" for name in _LOSSES for count in POSITIVES]
    rows += [f"{name} fused {count}" for name in _LOSSES for count in _FUSED_POSITIVES]
    return ["focal", *rows, *(entry.name for entry in list_configs(schedule="300it"))]


def measure(name: str, *, show_lines: bool = False, autocast: bool = False) -> Costs:
    """Count for one of `names()`.

    Args:
        name: name of a row.
        show_lines: whether the lines are printed where a training step waits.
        autocast: whether a config trains in bfloat16.

    Raises:
        AssertionError: The pretend device computes other losses than the CPU.
    """
    if "/" in name:
        return _of_config(name, show_lines, autocast)
    if " fused " not in name:
        return _of_loss(name)
    from brloss_d2.ops.triton import fused  # Triton need not be installed

    # The interpreter takes its time per operation, not per number.
    with use_backend("triton"), patch.multiple(fused, _ROWS=256, _COLUMNS=512, _BLOCK=8192):
        return _of_loss(name)


def _of_loss(name: str) -> Costs:
    loss, *words = name.split()
    problem = draw(SYNTHETIC, _LOGITS, int(words[-1] if words else 50) / _LOGITS)
    labels, quality = problem.labels, problem.quality
    positives = (labels == 1).nonzero().squeeze(1)

    def compute(logits: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
        if loss == "focal":
            return sigmoid_focal_loss(logits, move((labels == 1).float()), reduction="sum")
        found = _LOSSES[loss](logits, move(labels), move(quality), positives=move(positives))
        return torch.stack(list(found.values())).sum()

    with use_backend("torch"):
        expected = compute(problem.logits, lambda x: x)
    with pretend_device() as device:
        logits = problem.logits.to(DEVICE).requires_grad_()
        parts = {id(x): x.to(DEVICE) for x in (labels, quality, positives)}
        device.reset()
        value = compute(logits, lambda x: parts[id(x)] if id(x) in parts else x.to(DEVICE))
        value.backward()
        costs = Costs(name, device.launches.total(), device.syncs.total())
        torch.testing.assert_close(value.to("cpu"), expected)
    return costs


def _of_config(name: str, show_lines: bool, autocast: bool) -> Costs:
    cfg = get_config(name)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    batch = _batch(_num_classes(cfg.model), masks=learns_masks(cfg))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = {key: value.item() for key, value in _losses(model, batch).items()}
    with pretend_device() as device:
        move(model)
        device.reset()
        with torch.autocast("pretend", torch.bfloat16, enabled=autocast):
            found = _losses(model, batch)
        torch.stack(list(found.values())).sum().backward()
        training = device.launches.total(), device.syncs.total()
        if show_lines:
            for (operator, line), count in device.syncs.most_common():
                print(f"{count:6} {operator:20} {line}")
        for key, value in found.items():
            # Autocast of a CPU has other operators in bfloat16.
            rtol, atol = (0.1, 1e-3) if autocast else (1e-5, 1e-6)
            torch.testing.assert_close(value.item(), expected[key], rtol=rtol, atol=atol)
        device.reset()
        with torch.no_grad():
            model.eval()([{k: v for k, v in x.items() if k != "instances"} for x in batch])
        return Costs(name, *training, device.launches.total(), device.syncs.total())


def _losses(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Return the losses of a step between two lines of the log."""
    torch.manual_seed(1)
    with EventStorage(start_iter=1):
        return model.train()(batch)


def _num_classes(model: Any) -> int:
    return next(node.num_classes for node in walk_nodes(model) if "num_classes" in node)


def _batch(num_classes: int, *, masks: bool) -> list[dict[str, Any]]:
    """Draw two images of different sizes with rectangles."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for (height, width), count in zip(_SIZES, _OBJECTS, strict=True):
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) / 2
        boxes = torch.cat([corner, corner + 16 + 24 * torch.rand(count, 2, generator=generator)], 1)
        instances = Instances((height, width), gt_boxes=Boxes(boxes))
        instances.gt_classes = torch.randint(num_classes, (count,), generator=generator)
        if masks:
            rows, columns = torch.arange(height)[:, None], torch.arange(width)
            bitmaps = [(rows >= y) & (rows < b) & (columns >= x) & (columns < r)
                       for x, y, r, b in boxes.tolist()]  # fmt: skip
            instances.gt_masks = BitMasks(torch.stack(bitmaps))
        shape = (3, height, width)
        image = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        batch.append(dict(image=image, instances=instances, height=height, width=width))
    return batch


def read(path: Path) -> dict[str, Costs]:
    """Read a file of this program, by name."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            Costs(r.pop("name"), **{k: int(v) for k, v in r.items()}) for r in csv.DictReader(file)
        ]
    return {row.name: row for row in rows}


def table(rows: Sequence[Costs]) -> str:
    """Return a Markdown table, with ratios to focal loss and to the baseline of each detector."""
    launches = {row.name: row.launches for row in rows}
    lines = []
    for row in rows:
        pattern = re.sub(r"_(rs|brs)_300it$", r"_{}_300it", row.name)
        baselines = (
            [pattern.format(loss) for loss in ("ce", "focal")] if "/" in row.name else ["focal"]
        )
        known = [launches[name] for name in baselines if name in launches]
        ratio = f"{row.launches / known[0]:.2f}" if known else "-"
        inference = (row.inference_launches, row.inference_syncs) if "/" in row.name else ("-", "-")
        lines.append((row.name, row.launches, ratio, row.syncs, *inference))
    columns = ["", "launches", "ratio", "waits", "launches in inference", "waits in inference"]
    return tabulate(lines, columns, "pipe", disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows with this in their name")
    parser.add_argument("--lines", action="store_true", help="print where the host waits")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name in (name for name in names() if args.only in name):
        rows.append(measure(name, show_lines=args.lines))
        print(*rows[-1], flush=True)
    with args.output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Costs._fields, *rows])
    args.output.with_suffix(".md").write_text(f"{table(rows)}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
