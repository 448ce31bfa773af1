"""Tables of the documentation, written from the configs and their `zoo.yaml`.

A document holds its tables between a line `<!-- zoo: PATTERN ... -->`, with patterns of names, or
`<!-- deviations: GROUP -->`, and a line `<!-- end -->`; what is between them is replaced.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from omegaconf import DictConfig

from brloss_d2.errors import InputError
from brloss_d2.model_zoo.card import drop_epochs, schedule_of
from brloss_d2.model_zoo.configs import get_config, root
from brloss_d2.model_zoo.entries import cell, published
from brloss_d2.utils.config_nodes import walk_nodes

_BLOCK = re.compile(r"(<!-- (zoo|deviations): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_NUMBERS = {
    "box_ap": "box AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
    "mask_ap": "mask AP",
    "olrp": "oLRP",
    "seconds": "s",
}


def documents() -> list[Path]:
    """Return the documents of the working copy that have tables.

    Raises:
        InputError: the package is installed, without documents.
    """
    found = [root() / "docs" / "model_zoo.md", *sorted((root() / "projects").glob("*/README.md"))]
    if not found[0].exists():
        raise InputError("The documents are part of a working copy; this package is installed.")
    return found


def with_tables(text: str) -> str:
    """Return the text of a document with its tables brought up to date."""

    def replace(block: re.Match[str]) -> str:
        table = _results if block[2] == "zoo" else _deviations
        return f"{block[1]}\n{table(block[3])}\n\n{block[4]}"

    return _BLOCK.sub(replace, text)


def _results(patterns: str) -> str:
    found = {
        name: row
        for name, row in published()["results"].items()
        if any(fnmatch(name, pattern) for pattern in patterns.split())
    }
    numbers = [key for key in _NUMBERS if any(key in row for row in found.values())]
    header = ["config", "epochs", "score", *(_NUMBERS[key] for key in numbers), "source"]
    rows = []
    for name, row in found.items():
        cfg = get_config(name)
        drops = ", ".join(drop_epochs(schedule_of(cfg), row["epochs"]))
        sizes = _training_sizes(cfg)
        epochs = f"{row['epochs']} ({drops})" + (f", {sizes}" if sizes != "800" else "")
        texts = [cell(row, key) for key in numbers]
        rows.append([f"`{name}`", epochs, _score_threshold(cfg), *texts, row.get("source", "-")])
    return _markdown(header, rows)


def _training_sizes(cfg: DictConfig) -> str:
    """Return the short sides of the training images in pixels, or the side of a square."""
    for node in walk_nodes(cfg.dataloader.train.mapper):
        if "short_edge_length" in node:
            sides = node.short_edge_length
            return str(sides[0]) if len(sides) == 1 else f"{min(sides)} to {max(sides)}"
        if "shape" in node:
            return str(node.shape[0])
    raise ValueError("the training images are not resized")


def _score_threshold(cfg: DictConfig) -> str:
    """Return the score that detections must exceed, "-" if all of them are kept."""
    for node in walk_nodes(cfg.model):
        score = node.get("test_score_thresh", node.get("score_thresh"))
        if score is not None:
            return f"{score:.2f}" if score >= 0.01 else f"{score:g}"
    return "-"


def _deviations(group: str) -> str:
    columns = ["here", "published", "reason"]
    rows = [[row[key].strip() for key in columns] for row in published()["deviations"][group]]
    return _markdown(columns, rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])
