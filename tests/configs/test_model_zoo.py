"""docs/model_zoo.md and the leaf configs: a row for each, with its threshold and length."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig

from brloss_d2.model_zoo import list_configs
from brloss_d2.model_zoo.documents import documents, with_tables
from brloss_d2.model_zoo.entries import NUMBERS, published

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
LEAVES = [
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in sorted(CONFIGS.rglob("*.py"))
    if not {"common", "quick"} & set(path.relative_to(CONFIGS).parts)
]
# Iterations of 16 images in an epoch.
EPOCHS = {"coco": 7330, "lvis_v1": 7674, "cityscapes": 1483}


def rows() -> Iterator[dict[str, str]]:
    """The rows of all tables that begin with a config, by the names of their columns."""
    columns: list[str] = []
    for line in (ROOT / "docs/model_zoo.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "config":
            columns = cells
        elif re.fullmatch(r"`\w+/\w+`", cells[0]):
            assert len(cells) == len(columns), line
            yield {**dict(zip(columns, cells, strict=True)), "config": cells[0].strip("`")}


ROWS = list(rows())


def test_documents_are_current() -> None:
    """They are written by `python tools/list_configs.py --write-docs`."""
    for path in documents():
        text = path.read_text(encoding="utf-8")
        assert re.search(r"<!-- (zoo|papers): ", text) and with_tables(text) == text, path


def test_published_facts_have_a_row_for_each_config() -> None:
    facts = published()
    names = {entry.name for entry in list_configs()}
    assert set(facts["results"]) == {name for name in names if "quick" not in name.split("/")}
    for name, row in facts["results"].items():
        has_number = any(key in row for key in (*NUMBERS, "seconds"))
        # Without a number, a source says that there is none: of losses that nobody has tried.
        assert row.get("source", "unpublished").startswith("unpublished") != has_number, name
        assert all(0 < row[key] < 100 for key in NUMBERS if key in row), name
        assert not {"olrp", "olrp_grid"} <= row.keys(), "by one of the two definitions"
        known = {"epochs", "seconds", "hyperparameters", "source", *NUMBERS}
        known |= {f"{key}_source" for key in NUMBERS}
        assert "epochs" in row and row.keys() <= known, name
    for group in facts["deviations"].values():
        for row in group:
            assert {"here", "published", "reason"} <= row.keys() <= {*row, "configs"}
            for pattern in row.get("configs", []):
                assert fnmatch.filter(names, pattern), pattern


def test_one_row_for_each_leaf() -> None:
    named = [row["config"] for row in ROWS]
    assert len(named) == len(set(named))
    assert set(LEAVES) == set(named)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_row_is_what_its_config_says(leaf: str) -> None:
    (row,) = (row for row in ROWS if row["config"] == leaf)
    cfg = LazyConfig.load(str(CONFIGS / f"{leaf}.py"))
    assert set(thresholds(cfg.model)) == {float(row["score"])}
    epochs, sizes = re.fullmatch(r"(\d+) \((?:[\d, ]+|cosine)\)(?:, (.+))?", row["epochs"]).groups()
    images = cfg.dataloader.train.total_batch_size
    assert cfg.train.max_iter * images == int(epochs) * EPOCHS[leaf.partition("/")[0]] * 16
    if leaf.startswith("coco/"):  # else the sizes are told above the table
        assert short_sides(cfg) == (sizes or "800")


def thresholds(node: DictConfig | ListConfig) -> Iterator[float]:
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        value = node[key]
        if key in ("test_score_thresh", "score_thresh"):
            yield value
        elif isinstance(value, DictConfig | ListConfig):
            yield from thresholds(value)


def short_sides(cfg: DictConfig) -> str:
    for augmentation in cfg.dataloader.train.mapper.augmentations:
        if "short_edge_length" in augmentation:
            sides = augmentation.short_edge_length
            return str(sides[0]) if len(sides) == 1 else f"{min(sides)} to {max(sides)}"
        if "shape" in augmentation:
            return str(augmentation.shape[0])
    raise AssertionError("no resizing")
