"""CSV file of the measured cells, one row per cell, kept from run to run."""

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OK, TIME, MEMORY = "ok", "skipped: time", "skipped: memory"


@dataclasses.dataclass(frozen=True)
class Row:
    """One loss on one problem. Numbers that were not measured are None.

    Attributes:
        device: name of the device.
        versions: versions of Python and torch.
        commit: commit of the working copy.
        scores: name of the score distribution.
        logits: number of logits.
        share: share of positives that was asked for.
        positives: number of positives.
        loss: name of the contender.
        status: `OK`, or the reason why there are no numbers.
        rounds: number of samples.
        forward_ms: median time of a forward pass in ms; `p20` and `p80` are its 20 % and 80 %
            quantiles.
        backward_ms: median time of a backward pass in ms.
        both_ms: median time of a forward and a backward pass in ms, without synchronization.
        x_focal: `both_ms` divided by that of focal loss, which is timed in turn with it.
        extra_mib: peak memory of a pass in MiB, without what was allocated before.
        limit_ms: time in ms that the device needs to copy 12 bytes per logit.
        limit_s: time limit of the cell in seconds.
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
        """Key of the cell: scores, logits, share and loss."""
        return self.scores, self.logits, self.share, self.loss


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_TEXT = ("device", "versions", "commit", "scores", "loss", "status")
_WHOLE = ("logits", "positives", "rounds")


def read(path: Path) -> list[Row]:
    """Read the rows of a file, none if it does not exist.

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


def _parse(name: str, text: str) -> Any:
    if name in _TEXT:
        return text
    if text == "":
        return None
    return int(text) if name in _WHOLE else float(text)


def append(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to a file, which is created if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        for row in rows:
            # The csv module writes None as an empty cell.
            values = dataclasses.astuple(row)
            writer.writerow([f"{x:.5g}" if isinstance(x, float) else x for x in values])
