"""Time the ranking losses beside torchvision's sigmoid focal loss, on the same tensors.

    python tools/benchmark_losses.py [--sizes 1e5 1e6] [--positives 0.001 0.01 0.05] [--csv FILE]

Scores are synthetic: negatives N(0, 1); positives N(0, 1) at the beginning of training ("early")
and N(2, 1) later ("mid"); quality uniform. All losses of a cell are timed in turn within each
round, so that whatever else the machine does hits them alike; the ratio is that of the medians.
"""

import argparse
import csv
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from brloss_d2 import losses

SHIFT = {"early": 0.0, "mid": 2.0}
RANKING = {
    "ap": losses.APLoss,
    "bap": losses.BucketedAPLoss,
    "alrp": losses.ALRPLoss,
    "rs": losses.RankSortLoss,
    "brs": losses.BucketedRankSortLoss,
}
COLUMNS = ("device", "scores", "logits", "positives", "loss", "median_ms", "p20_ms", "p80_ms")


def make_step(name: str, logits: Tensor, labels: Tensor, quality: Tensor) -> Callable[[], None]:
    """Forward and backward of one loss."""
    targets = labels.float()

    def focal() -> None:
        sigmoid_focal_loss(logits, targets, reduction="sum").backward()

    def ranking() -> None:
        sum(loss(logits, labels, quality).values()).backward()

    if name == "focal":
        return focal
    loss = RANKING[name]()
    return ranking


def make_inputs(size: int, share: float, scores: str, device: str):
    """Logits (M,), labels (M,) and quality (P,) of one cell."""
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(size * share))
    labels = torch.zeros(size, dtype=torch.long)
    labels[torch.randperm(size, generator=generator)[:count]] = 1
    logits = torch.randn(size, generator=generator) + SHIFT[scores] * labels
    quality = torch.rand(count, generator=generator)
    return logits.to(device).requires_grad_(), labels.to(device), quality.to(device)


def timed(step: Callable[[], None], device: str) -> float:
    """Milliseconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def time_cell(steps: dict[str, Callable[[], None]], logits: Tensor, rounds: int, device: str):
    """Milliseconds of every round by loss; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            logits.grad = None
            times[name].append(timed(step, device))
    return {name: t[1:] for name, t in times.items()}


def extra_memory(step: Callable[[], None], device: str) -> float:
    """MiB that one call needs at its peak beyond what is there before it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step()
    done.set()
    watcher.join()
    return (max(peak, resident()) - before) / 2**20


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6], help="logits")
    parser.add_argument("--positives", type=float, nargs="+", default=[0.001, 0.01, 0.05])
    parser.add_argument("--losses", nargs="+", choices=RANKING, default=list(RANKING))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--csv", type=Path, help="write the times here")
    parser.add_argument("--quick", action="store_true", help="one small size, three rounds")
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.rounds = [1e4], 3
    return args


def describe(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def main() -> int:
    args = parse()
    print(f"{describe(args.device)}, torch {torch.__version__}; forward + backward")
    rows, table = [], []
    for size in map(int, args.sizes):
        for share in args.positives:
            for scores in SHIFT:
                inputs = make_inputs(size, share, scores, args.device)
                steps = {n: make_step(n, *inputs) for n in ("focal", *args.losses)}
                times = time_cell(steps, inputs[0], args.rounds, args.device)
                focal = statistics.median(times["focal"])
                for name, t in times.items():
                    low, *_, high = statistics.quantiles(t, n=5)
                    median = statistics.median(t)
                    cell = (scores, size, len(inputs[2]), name)
                    rows.append((describe(args.device), *cell, median, low, high))
                    memory = extra_memory(steps[name], args.device)
                    table.append((*cell, median, median / focal, memory))
    headers = ("scores", "logits", "positives", "loss", "median ms", "x focal", "extra MiB")
    print(tabulate(table, headers, floatfmt=("", "", "", "", ".2f", ".2f", ".0f")))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
