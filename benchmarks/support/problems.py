"""Ranking problems to measure: scores from a formula, or as they were met in real training."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

RECORDED = Path(__file__).with_name("recorded_scores.json")
SYNTHETIC = "synthetic"
STAGES = ("early", "mid", "late")
HEADS = ("rpn", "roi")
# The first four are the default: the RPN has the largest pools, like the one-stage detectors.
SOURCES = (SYNTHETIC, *(f"{head}_{stage}" for head in HEADS for stage in STAGES))


class Problem(NamedTuple):
    """Inputs of a ranking loss: logits (M,), labels (M,) int8, quality (P,)."""

    logits: Tensor
    labels: Tensor
    quality: Tensor


def draw(source: str, size: int, share: float, *, device: str = "cpu", seed: int = 0) -> Problem:
    """A problem of `size` logits, of which `share` (at least one) are positive, in random order.

    Args:
        source: one of `SOURCES`. Synthetic: negatives N(0, 1), positives N(1, 1), quality uniform
            in [0, 1]. Recorded: each drawn by itself from the quantiles of that snapshot.
        size: M.
        share: of positives, in (0, 1].
        device: to put it on; it is drawn on the CPU, so that all devices get the same.
        seed: other seeds give other problems.
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(1, round(size * share))
    where = torch.randperm(size, generator=generator)[:count]
    labels = torch.zeros(size, dtype=torch.int8)
    labels[where] = 1
    if source == SYNTHETIC:
        logits = torch.randn(size, generator=generator)
        logits[where] += 1
        quality = torch.rand(count, generator=generator)
    else:
        logits = _from_quantiles(source, "negatives", size, generator)
        logits[where] = _from_quantiles(source, "positives", count, generator)
        quality = _from_quantiles(source, "quality", count, generator)
    return Problem(logits.to(device), labels.to(device), quality.to(device))


def _from_quantiles(source: str, what: str, count: int, generator: torch.Generator) -> Tensor:
    recording = load_recording()
    uniform = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    values = recording["snapshots"][source][what]
    return torch.from_numpy(np.interp(uniform, recording["levels"], values)).float()


@cache
def load_recording(path: Path = RECORDED) -> dict:
    """What benchmarks/record_scores.py has written."""
    return json.loads(path.read_text())
