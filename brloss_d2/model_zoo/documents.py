"""Tables of the documentation, written from the configs and their `zoo.yaml`.

A document holds its tables between a line `<!-- zoo: PATTERN ... -->`, with patterns of names,
`<!-- deviations: GROUP -->` or `<!-- papers: TABLE -->`, and a line `<!-- end -->`; what is between
them is replaced.
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from brloss_d2.errors import InputError
from brloss_d2.model_zoo.card import drop_epochs, schedule_of
from brloss_d2.model_zoo.configs import get_config, root
from brloss_d2.model_zoo.entries import NUMBERS, cell, published
from brloss_d2.model_zoo.hyperparameters import hyperparameters
from brloss_d2.model_zoo.papers import paper_table
from brloss_d2.utils.config_nodes import walk_nodes

_BLOCK = re.compile(r"(<!-- (zoo|deviations|papers): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEADERS = {**NUMBERS, "seconds": "s"}


def documents() -> list[Path]:
    """Return the documents of the working copy that have tables.

    Raises:
        InputError: the package is installed, without documents.
    """
    pages = [root() / "docs" / name for name in ("model_zoo.md", "papers.md")]
    found = [*pages, *sorted((root() / "projects").glob("*/README.md"))]
    if not found[0].exists():
        raise InputError("The documents are part of a working copy; this package is installed.")
    return found


def with_tables(text: str) -> str:
    """Return the text of a document with its tables brought up to date."""
    return _BLOCK.sub(_with_table, text)


def _with_table(block: re.Match[str]) -> str:
    begin, kind, argument, end = block.groups()
    if kind == "zoo":
        rows = list(_zoo_rows(argument.split()))
    elif kind == "papers":
        rows = paper_table(argument)
    else:
        columns = ("here", "published", "reason")
        deviations = published()["deviations"][argument]
        rows = [{key: deviation[key].strip() for key in columns} for deviation in deviations]
    header = [key for key in rows[0] if any(row[key] != "-" for row in rows)]
    table = [header, *([row[key] for key in header] for row in rows)]
    first, *lines = [f"| {' | '.join(cells)} |" for cells in table]
    return "\n".join([begin, first, "|---" * len(header) + "|", *lines, "", end])


def _zoo_rows(patterns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield a row for each config, with texts by the names of the columns, "-" for nothing."""
    for name, row in published()["results"].items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            sizes, score = _sizes_and_score(cfg := get_config(name))
            drops = ", ".join(drop_epochs(schedule_of(cfg), row["epochs"])) or "cosine"
            yield {
                "config": f"`{name}`",
                "epochs": f"{row['epochs']} ({drops})" + (f", {sizes}" if sizes != "800" else ""),
                "score": score,
                "#H": _hyperparameters(row, cfg),
                **{header: cell(row, key) for key, header in _HEADERS.items()},
                "source": row.get("source", "-"),
            }


def _hyperparameters(row: dict[str, Any], cfg: DictConfig) -> str:
    """Return the published number, then in brackets the counted one if it is another."""
    found = hyperparameters(cfg.model)
    counted = "" if found is None else f"({len(found)})"
    stated = str(row.get("hyperparameters", ""))
    return stated if counted == f"({stated})" else f"{stated} {counted}".strip() or "-"


def _sizes_and_score(cfg: DictConfig) -> tuple[str, str]:
    """Return the short sides of the training images and the score that detections must exceed."""
    sizes = score = "-"
    for node in walk_nodes(cfg.dataloader.train.mapper):
        if "short_edge_length" in node or "shape" in node:  # of a square
            sides = node.get("short_edge_length") or node.shape[:1]
            sizes = str(sides[0]) if len(sides) == 1 else f"{min(sides)} to {max(sides)}"
            break
        if "target_height" in node:  # large-scale jitter
            sizes = f"{node.min_scale:g} to {node.max_scale:g} x {node.target_height}"
            break
    for node in walk_nodes(cfg.model):
        threshold = node.get("test_score_thresh", node.get("score_thresh"))
        if threshold is not None:
            score = f"{threshold:.2f}" if threshold >= 0.01 else f"{threshold:g}"
    return sizes, score
