"""The table in a few lines: how each loss stands to focal loss, to the limit, and how it grows."""

import math
import statistics
from collections.abc import Iterable, Sequence

from support.contenders import CONTENDERS
from support.machine import MIB
from tabulate import tabulate

from grid.table import MEMORY, OK, TIME, Row

# What a loss of ours is compared with, where somebody has published an algorithm for it.
PUBLISHED = {"ap": "ap_loop", "rs": "rs_loop", "brs": "brs_matrices"}
# Below, the overhead of starting operations hides how the work grows.
_GROWTH_FROM = 100_000


def summarize(rows: Sequence[Row]) -> str:
    """Markdown: one table of the losses, one of what was skipped."""
    ok = [row for row in rows if row.status == OK]
    names = [name for name, contender in CONTENDERS.items() if contender.ours]
    headers = ("", *(f"`{name}`" for name in names))
    own = [[row for row in ok if row.loss == name] for name in names]
    lines = [
        ("time / focal: median of the cells", *map(_median_ratio, own)),
        ("time / focal: worst cell", *map(_worst_ratio, own)),
        ("growth in the logits", *(_format(growth_in_logits(o)) for o in own)),
        ("growth in the positives", *(_format(growth_in_positives(o)) for o in own)),
        ("bytes a logit, at most", *(_format(bytes_a_logit(o)) for o in own)),
        ("published algorithm / ours, at most", *(_speed_up(ok, name) for name in names)),
    ]
    origin = sorted({f"{row.device}; {row.versions}; commit {row.commit}" for row in rows})
    parts = [*origin, tabulate(lines, headers, tablefmt="github"), _missing(rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def growth_in_logits(rows: Sequence[Row]) -> float | None:
    """Exponent of the time in the number of logits, where positives are fewest."""
    share = min((row.share for row in rows), default=0)
    chosen = [row for row in rows if row.share == share and row.logits >= _GROWTH_FROM]
    return _largest(_exponents(chosen, by="scores", x="logits"))


def growth_in_positives(rows: Sequence[Row]) -> float | None:
    """Exponent of the time in the number of positives, among as many logits."""
    chosen = [row for row in rows if row.logits >= _GROWTH_FROM]
    found: list[float] = []
    for logits in {row.logits for row in chosen}:
        found += _exponents([r for r in chosen if r.logits == logits], by="scores", x="positives")
    return _largest(found)


def bytes_a_logit(rows: Sequence[Row]) -> float | None:
    """Peak extra memory a logit, where there are enough for it to mean something."""
    rows = [row for row in rows if row.extra_mib is not None and row.logits >= _GROWTH_FROM]
    return _largest(row.extra_mib * MIB / row.logits for row in rows if row.extra_mib)


def _exponents(rows: Sequence[Row], *, by: str, x: str) -> list[float]:
    """Least-squares slopes of log time against log x, one for each value of `by`."""
    found = []
    for value in sorted({getattr(row, by) for row in rows}):
        own = [row for row in rows if getattr(row, by) == value and row.both_ms]
        xs = [math.log(getattr(row, x)) for row in own]
        if len(set(xs)) > 1:
            ys = [math.log(row.both_ms or 1) for row in own]
            found.append(statistics.linear_regression(xs, ys).slope)
    return found


def _largest(values: Iterable[float]) -> float | None:
    return max(values, default=None)


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


def _speed_up(ok: Sequence[Row], name: str) -> str:
    """How many times longer the published algorithm takes, where that is most."""
    theirs = {row.cell[:3]: row for row in ok if row.loss == PUBLISHED.get(name)}
    ours = [row for row in ok if row.loss == name and row.cell[:3] in theirs]
    if not ours:
        return "-"

    def ratio(row: Row) -> float:
        return (theirs[row.cell[:3]].both_ms or 0) / (row.both_ms or 1)

    best = max(ours, key=ratio)
    return f"{ratio(best):.0f} ({best.logits:.3g} x {best.share:.1%}, {best.scores})"


def _missing(rows: Sequence[Row]) -> str:
    skipped = [row for row in rows if row.status in (TIME, MEMORY)]
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
