"""Measure the cells of a grid that are not in the table yet."""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from grid import table
from grid.table import Row
from support import machine, problems, timing
from support.contenders import CONTENDERS, FOCAL

# Cells whose passes take longer, in ms, consist of thousands of operations: recording all their
# allocations would take too long.
_PROFILE_UP_TO_MS = 3000
# Bytes per logit that a loss has to move: two passes read each float32 logit, one writes its
# gradient; labels not counted.
_BYTES_PER_LOGIT = 12


class Grid(NamedTuple):
    """Cells to measure: all combinations of sizes, shares, sources and losses.

    Attributes:
        sizes: numbers of logits, ascending.
        shares: shares of positives, ascending, in (0, 1].
        sources: names of score distributions, see `support.problems.SOURCES`.
        losses: names of contenders.
        device: "cpu" or "cuda".
        rounds: largest number of samples per cell.
        limit: seconds per cell.
    """

    sizes: Sequence[int]
    shares: Sequence[float]
    sources: Sequence[str]
    losses: Sequence[str]
    device: str
    rounds: int
    limit: float


def measure_missing(grid: Grid, path: Path) -> Iterator[list[Row]]:
    """Measure the cells that are missing in a CSV file and append them to it.

    Args:
        grid: cells that the file should have.
        path: path of the CSV file.

    Yields:
        New rows of one problem.

    Raises:
        ValueError: the file has rows of another device.
    """
    rows = table.read(path)
    device, copied = machine.describe(grid.device), machine.copy_bandwidth(grid.device)
    if others := {row.device for row in rows} - {device}:
        raise ValueError(f"{path} was measured on {others.pop()}, not {device}")
    stamp = {"device": device, "versions": machine.versions(), "commit": machine.commit()}
    # Small problems first: a loss that is too slow there is not tried on larger ones.
    for size, share, source in itertools.product(grid.sizes, grid.shares, grid.sources):
        done = {row.cell for row in rows}
        pending = [n for n in grid.losses if (source, size, float(share), n) not in done]
        if not pending:
            continue
        count = max(1, round(size * share))
        cell: dict[str, Any] = stamp | {
            **{"scores": source, "logits": size, "share": float(share), "positives": count},
            **{"limit_ms": 1e3 * _BYTES_PER_LOGIT * size / copied, "limit_s": grid.limit},
        }
        reasons = {n: _reason_to_skip(n, size, count, rows, grid) for n in pending}
        found = [Row(**cell, loss=n, status=reason) for n, reason in reasons.items() if reason]
        found += _measure([n for n, reason in reasons.items() if not reason], grid, cell)
        table.append(path, found)
        rows += found
        yield found


def _reason_to_skip(name: str, size: int, count: int, rows: list[Row], grid: Grid) -> str | None:
    """Return the status of a cell that is not even tried, None if it is."""
    if CONTENDERS[name].matrix_bytes(count) > 0.7 * machine.free_memory(grid.device):
        return table.MEMORY
    for row in rows:
        smaller = row.logits <= size and row.positives <= count
        same = row.loss == name and row.status == table.TIME
        if same and smaller and (row.limit_s or 0) >= grid.limit:
            return table.TIME
    return None


def _measure(names: list[str], grid: Grid, cell: dict[str, Any]) -> list[Row]:
    """Measure losses on one problem; `cell` has the columns that their rows share."""
    if not names:
        return []
    problem = problems.draw(cell["scores"], cell["logits"], cell["share"], device=grid.device)
    problem.logits.requires_grad_()
    # Focal loss is always measured, as reference.
    forwards = {n: CONTENDERS[n].prepare(problem) for n in dict.fromkeys([FOCAL, *names])}
    samples = timing.time_in_turn(
        forwards, problem.logits, grid.device, rounds=grid.rounds, limit=grid.limit
    )
    focal = samples[FOCAL]
    rows = []
    for name in names:
        found = samples[name]
        if found is None:
            rows.append(Row(**cell, loss=name, status=table.TIME))
            continue
        numbers: dict[str, Any] = {}
        for phase in timing.Sample._fields:
            times = torch.tensor([getattr(s, phase) for s in found], dtype=torch.float64)
            for suffix, q in (("ms", 0.5), ("p20_ms", 0.2), ("p80_ms", 0.8)):
                numbers[f"{phase}_{suffix}"] = times.quantile(q).item()
        if focal:
            numbers["x_focal"] = numbers["both_ms"] / statistics.median(s.both for s in focal)
        if numbers["both_ms"] <= _PROFILE_UP_TO_MS:
            numbers["extra_mib"] = timing.peak_memory(forwards[name], problem.logits, grid.device)
        rows.append(Row(**cell, loss=name, rounds=len(found), **numbers))
    return rows
