"""docs/model_zoo.md and the leaf configs: a row for each, with its threshold and length."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from omegaconf import DictConfig, ListConfig

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


def test_one_row_for_each_leaf() -> None:
    named = [row["config"] for row in ROWS]
    assert len(named) == len(set(named))
    assert not set(LEAVES) - set(named)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_row_is_what_its_config_says(leaf: str) -> None:
    (row,) = (row for row in ROWS if row["config"] == leaf)
    cfg = LazyConfig.load(str(CONFIGS / f"{leaf}.py"))
    assert set(thresholds(cfg.model)) == {float(row["score"])}
    epochs, sizes = re.fullmatch(r"(\d+) \([\d, ]+\)(?:, (.+))?", row["epochs"]).groups()
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
