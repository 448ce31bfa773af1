"""The rows of the papers' tables and their claims, with what stands behind each of them here."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from brloss_d2.model_zoo.configs import config_files, root

SUMMARY = "summary"
KINDS = ("with a config", "with a test or page alone", "missing")


@cache
def papers() -> dict[str, dict[str, Any]]:
    """Return what `configs/papers.yaml` says; its comments explain the keys.

    Returns:
        Name of a table -> "title" and "rows".
    """
    text = (root() / "configs" / "papers.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def paper_table(name: str) -> list[dict[str, str]]:
    """Return the rows of one table for the documents, with texts by the names of the columns.

    Args:
        name: name of a table as in `papers()`, or "summary" for the numbers of rows of all tables.
    """
    if name != SUMMARY:
        return [
            {"row": row["row"], "published": row["published"], "here": _here(row)}
            for row in papers()[name]["rows"]
        ]
    counts = []
    for table in papers().values():
        kinds = [kind_of(row) for row in table["rows"]]
        counts.append([table["title"], len(kinds), *(kinds.count(kind) for kind in KINDS)])
    totals = ["all", *(sum(column) for column in list(zip(*counts, strict=True))[1:])]
    header = ("table", "rows", *KINDS)
    return [dict(zip(header, map(str, row), strict=True)) for row in (*counts, totals)]


def kind_of(row: dict[str, Any]) -> str:
    """Return one of `KINDS`; a row whose configs, tests and pages are not all there is missing."""
    by = row.get("by", [])
    if not by or not all(map(exists, by)):
        return "missing"
    return KINDS[0] if any(name in config_files() for name in by) else KINDS[1]


def exists(name: str) -> bool:
    """Return whether there is such a config, or such a file of the working copy."""
    return name in config_files() or (root() / name).is_file()


def _here(row: dict[str, Any]) -> str:
    """Return what stands behind a row, in Markdown for a page in `docs`."""
    texts = []
    for name in row.get("by", []):
        link = name.removeprefix("docs/") if name.startswith("docs/") else f"../{name}"
        text = f"[{name}]({link})" if Path(name).suffix in (".py", ".md") else f"`{name}`"
        texts.append(text if exists(name) else f"missing: `{name}`")
    if not texts:
        return f"missing: {row['note']}"
    return "; ".join([", ".join(texts), *([row["note"]] if "note" in row else [])])
