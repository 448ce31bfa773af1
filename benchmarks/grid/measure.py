"""Measure the cells of a grid that are not in the table yet."""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from support import machine, problems, timing
from support.contenders import CONTENDERS, FOCAL

from grid import table
from grid.table import Row

# Passes longer than this many ms do thousands of operations: not worth a profile of the memory.
_PROFILE_UP_TO_MS = 3000
# Bytes per logit that a loss has to move: two passes read each float32 logit, one writes its
# gradient; labels not counted.
LIMIT_BYTES = 12


class Grid(NamedTuple):
    """What to measure, and for how long; see the options of benchmarks/losses.py."""

    sizes: Sequence[int]
    shares: Sequence[float]
    sources: Sequence[str]
    losses: Sequence[str]
    device: str
    rounds: int
    limit: float


def measure_missing(grid: Grid, path: Path) -> Iterator[list[Row]]:
    """Measure what `path` lacks and append it there; yield the new rows of each problem.

    Raises:
        ValueError: the file was measured on another device.
    """
    rows = table.read(path)
    stamp = {
        "device": machine.describe(grid.device),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    if others := {row.device for row in rows} - {stamp["device"]}:
        raise ValueError(f"{path} was measured on {others.pop()}, not {stamp['device']}")
    limit_ms = 1e3 * LIMIT_BYTES / machine.copy_bandwidth(grid.device)  # of a logit
    # Small problems first: what is too slow there need not be tried on a larger one.
    for size, share, source in itertools.product(grid.sizes, grid.shares, grid.sources):
        done = {row.cell for row in rows}
        pending = [n for n in grid.losses if (source, size, float(share), n) not in done]
        if not pending:
            continue
        count = max(1, round(size * share))
        stamp_cell = {
            **stamp,
            **{"scores": source, "logits": size, "share": float(share), "positives": count},
            **{"limit_ms": limit_ms * size, "limit_s": grid.limit},
        }
        skipped = {n: reason for n in pending if (reason := _why_not(n, size, count, rows, grid))}
        pending = [n for n in pending if n not in skipped]
        found = [Row(**stamp_cell, loss=n, status=reason) for n, reason in skipped.items()]
        found += _measure(pending, source, size, share, grid, stamp_cell)
        table.append(path, found)
        rows += found
        yield found


def _why_not(name: str, size: int, count: int, rows: list[Row], grid: Grid) -> str | None:
    """Why a cell is not even tried, if so."""
    if CONTENDERS[name].matrix_bytes(count) > 0.7 * machine.free_memory(grid.device):
        return table.MEMORY
    for row in rows:
        smaller = row.logits <= size and row.positives <= count
        same = row.loss == name and row.status == table.TIME
        if same and smaller and (row.limit_s or 0) >= grid.limit:
            return table.TIME
    return None


def _measure(
    names: list[str], source: str, size: int, share: float, grid: Grid, stamp: dict
) -> list[Row]:
    if not names:
        return []
    problem = problems.draw(source, size, share, device=grid.device)
    problem.logits.requires_grad_()
    # Focal loss always runs along, to compare with.
    forwards = {n: CONTENDERS[n].prepare(problem) for n in dict.fromkeys([FOCAL, *names])}
    samples = timing.time_in_turn(
        forwards, problem.logits, grid.device, rounds=grid.rounds, limit=grid.limit
    )
    focal = samples[FOCAL]
    focal_ms = statistics.median(s.both for s in focal) if focal else None
    rows = []
    for name in names:
        found = samples[name]
        if found is None:
            rows.append(Row(**stamp, loss=name, status=table.TIME))
            continue
        numbers = _numbers(found, focal_ms)
        if numbers["both_ms"] <= _PROFILE_UP_TO_MS:
            numbers["extra_mib"] = timing.peak_memory(forwards[name], problem.logits, grid.device)
        rows.append(Row(**stamp, loss=name, rounds=len(found), **numbers))
    return rows


def _numbers(samples: list[timing.Sample], focal_ms: float | None) -> dict[str, float]:
    numbers = {}
    for phase in timing.Sample._fields:
        times = torch.tensor([getattr(s, phase) for s in samples], dtype=torch.float64)
        for suffix, q in (("ms", 0.5), ("p20_ms", 0.2), ("p80_ms", 0.8)):
            numbers[f"{phase}_{suffix}"] = times.quantile(q).item()
    if focal_ms:
        numbers["x_focal"] = numbers["both_ms"] / focal_ms
    return numbers
