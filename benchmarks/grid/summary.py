"""Summary of the table: each loss relative to focal loss and published code, and its growth."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from tabulate import tabulate

from grid.table import OK, TIME, Row
from support.contenders import CONTENDERS
from support.machine import MIB

# Contenders with the published algorithms of our losses.
PUBLISHED = {"ap": "ap_loop", "rs": "rs_loop", "brs": "brs_matrices"}
# With fewer logits, the overhead of starting operations hides how the work grows.
_GROWTH_FROM = 100_000


def summarize(rows: Sequence[Row]) -> str:
    """Write two tables in Markdown: one of our losses, one of the skipped cells."""
    ok = [row for row in rows if row.status == OK]
    names = [name for name, contender in CONTENDERS.items() if contender.ours]
    own = [[row for row in ok if row.loss == name] for name in names]
    lines = [
        ("time / focal: median of the cells", *map(_median_ratio, own)),
        ("time / focal: worst cell", *map(_worst_ratio, own)),
        ("growth in the logits", *(_format(growth_in_logits(o)) for o in own)),
        ("growth in the positives", *(_format(growth_in_positives(o)) for o in own)),
        ("bytes a logit, at most", *(_format(bytes_per_logit(o)) for o in own)),
        ("published algorithm / ours, at most", *(_speed_up(ok, name) for name in names)),
    ]
    headers = ("", *(f"`{name}`" for name in names))
    origin = sorted({f"{row.device}; {row.versions}; commit {row.commit}" for row in rows})
    parts = [*origin, tabulate(lines, headers, tablefmt="github"), _skipped(rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def growth_in_logits(rows: Sequence[Row]) -> float | None:
    """Return the exponent of the time in the number of logits, at the smallest share."""
    share = min((row.share for row in rows), default=0)
    chosen = [row for row in rows if row.share == share and row.logits >= _GROWTH_FROM]
    return max(_exponents(chosen, "logits"), default=None)


def growth_in_positives(rows: Sequence[Row]) -> float | None:
    """Return the exponent of the time in the number of positives, at equal number of logits."""
    sizes = {row.logits for row in rows if row.logits >= _GROWTH_FROM}
    found = [
        exponent
        for size in sizes
        for exponent in _exponents([row for row in rows if row.logits == size], "positives")
    ]
    return max(found, default=None)


def _exponents(rows: Sequence[Row], x: Literal["logits", "positives"]) -> list[float]:
    """Return the least-squares slopes of log time against log x, one per score distribution."""
    found = []
    for source in sorted({row.scores for row in rows}):
        own = [row for row in rows if row.scores == source and row.both_ms]
        xs = [math.log(getattr(row, x)) for row in own]
        if len(set(xs)) > 1:
            ys = [math.log(row.both_ms or 1) for row in own]
            found.append(statistics.linear_regression(xs, ys).slope)
    return found


def bytes_per_logit(rows: Sequence[Row]) -> float | None:
    """Return the largest peak memory per logit, over problems with many logits."""
    large = [row for row in rows if row.extra_mib and row.logits >= _GROWTH_FROM]
    return max(((row.extra_mib or 0) * MIB / row.logits for row in large), default=None)


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _median_ratio(rows: Sequence[Row]) -> str:
    ratios = [row.x_focal for row in rows if row.x_focal]
    return _format(statistics.median(ratios) if ratios else None)


def _worst_ratio(rows: Sequence[Row]) -> str:
    worst = max(rows, key=lambda row: row.x_focal or 0, default=None)
    if worst is None:
        return "-"
    return f"{worst.x_focal:.2f} ({worst.logits:.3g} x {worst.share:.1%}, {worst.scores})"


def _speed_up(rows: Sequence[Row], name: str) -> str:
    """Return the largest ratio of the published algorithm's time to that of loss `name`."""
    published = {row.cell[:3]: row for row in rows if row.loss == PUBLISHED.get(name)}
    ratios = [
        ((published[row.cell[:3]].both_ms or 0) / (row.both_ms or 1), row)
        for row in rows
        if row.loss == name and row.cell[:3] in published
    ]
    if not ratios:
        return "-"
    ratio, best = max(ratios, key=lambda pair: pair[0])
    return f"{ratio:.0f} ({best.logits:.3g} x {best.share:.1%}, {best.scores})"


def _skipped(rows: Sequence[Row]) -> str:
    """Tabulate the skipped cells by loss and reason; return an empty text if there are none."""
    skipped = [row for row in rows if row.status != OK]
    lines = []
    for loss, status in sorted({(row.loss, row.status) for row in skipped}):
        own = [row for row in skipped if (row.loss, row.status) == (loss, status)]
        cells = sorted({(row.logits, row.share) for row in own})
        which = ", ".join(f"{logits:.3g} x {share:.1%}" for logits, share in cells)
        limits = sorted({f"{row.limit_s:g}" for row in own if row.limit_s})
        reason = "longer than " + "/".join(limits) + " s" if status == TIME else "memory"
        lines.append((f"`{loss}`", reason, which))
    headers = ("skipped", "why", "logits x positives (some or all scores)")
    return tabulate(lines, headers, tablefmt="github") if lines else ""
