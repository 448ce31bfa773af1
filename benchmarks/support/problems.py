"""Ranking problems to measure, with synthetic scores or scores recorded in a training."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

RECORDED = Path(__file__).with_name("recorded_scores.json")
SYNTHETIC = "synthetic"
STAGES = ("early", "mid", "late")
HEADS = ("rpn", "roi")
# The first four are the default: the pools of the RPN are large, like those of one-stage detectors.
SOURCES = (SYNTHETIC, *(f"{head}_{stage}" for head in HEADS for stage in STAGES))


class Problem(NamedTuple):
    """Inputs of a ranking loss: logits (M,), labels (M,) int8, quality (P,)."""

    logits: Tensor
    labels: Tensor
    quality: Tensor


def draw(source: str, size: int, share: float, *, device: str = "cpu", seed: int = 0) -> Problem:
    """Draw a problem, with the positives at random places.

    Args:
        source: one of `SOURCES`. Synthetic: negatives N(0, 1), positives N(1, 1), quality uniform
            in [0, 1]. Recorded: logits and qualities drawn independently from the quantiles of
            that snapshot.
        size: number of logits M.
        share: share of positives, in (0, 1]; at least one logit is positive.
        device: device of the tensors; the numbers are drawn on the CPU and the same on all devices.
        seed: seed of the random numbers.

    Returns:
        The problem.
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
def load_recording(path: Path = RECORDED) -> dict[str, Any]:
    """Load a file written by benchmarks/record_scores.py."""
    return json.loads(path.read_text())
