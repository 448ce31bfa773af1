"""The CSV file: one row a cell, kept from run to run."""

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path

OK, TIME, MEMORY = "ok", "skipped: time", "skipped: memory"


@dataclasses.dataclass(frozen=True)
class Row:
    """One loss on one problem. Times in ms: median, 20 % and 80 % quantile; None if skipped.

    Attributes:
        share: of positives among the logits, as asked for; `positives` is their number.
        status: `OK`, or why there are no numbers.
        rounds: samples behind the quantiles.
        x_focal: median of `both` over that of focal loss, timed in turn with it.
        extra_mib: peak memory of a pass beyond what is in use before; None if not measured.
        limit_ms: 12 bytes a logit over the copy bandwidth of the device.
        limit_s: the time limit of the cell.
    """

    device: str
    versions: str
    commit: str
    scores: str
    logits: int
    share: float
    positives: int
    loss: str
    status: str = OK
    rounds: int = 0
    forward_ms: float | None = None
    forward_p20_ms: float | None = None
    forward_p80_ms: float | None = None
    backward_ms: float | None = None
    backward_p20_ms: float | None = None
    backward_p80_ms: float | None = None
    both_ms: float | None = None
    both_p20_ms: float | None = None
    both_p80_ms: float | None = None
    x_focal: float | None = None
    extra_mib: float | None = None
    limit_ms: float | None = None
    limit_s: float | None = None

    @property
    def cell(self) -> tuple[str, int, float, str]:
        return self.scores, self.logits, self.share, self.loss


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_TEXT = ("device", "versions", "commit", "scores", "loss", "status")
_WHOLE = ("logits", "positives", "rounds")


def read(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file.

    Raises:
        ValueError: the file has other columns.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} has other columns than expected; move it away")
        return [Row(**{name: _parse(name, text) for name, text in r.items()}) for r in reader]


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a file, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerows([_format(value) for value in dataclasses.astuple(row)] for row in rows)


def _parse(name: str, text: str):
    if name in _TEXT:
        return text
    if text == "":
        return None
    return int(text) if name in _WHOLE else float(text)


def _format(value) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
