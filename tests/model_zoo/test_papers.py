"""The rows of the papers: what is said to stand behind them exists and has their numbers."""

import re
from typing import Any

import pytest

from brloss_d2.model_zoo.entries import published
from brloss_d2.model_zoo.papers import KINDS, exists, kind_of, paper_table, papers

ROWS = [(name, row) for name, table in papers().items() for row in table["rows"]]
# Published elsewhere than in a row of the zoo: an ablation, and a test in several sizes.
NOT_IN_THE_ZOO = {"40.2", "50.2"}


def test_rows_are_complete() -> None:
    assert len({(name, row["row"]) for name, row in ROWS}) == len(ROWS) > 76
    for _, row in ROWS:
        assert {"row", "published"} <= row.keys() <= {"row", "published", "by", "note"}
        assert row.get("by") or row.get("note"), "what stands behind it, or why nothing does"
        for name in row.get("by", []):
            assert exists(name), name


@pytest.mark.parametrize("row", [row for name, row in ROWS if name != "claims"], ids=str)
def test_the_numbers_are_those_of_the_zoo(row: dict[str, Any]) -> None:
    facts = [published()["results"].get(name, {}) for name in row.get("by", [])]
    if any(facts):
        text = " ".join(str(value) for fact in facts for value in fact.values())
        known = {float(number) for number in re.findall(r"\d+\.\d+", text)}
        numbers = re.findall(r"\d+\.\d+", row["published"])
        assert {float(n) for n in numbers if n not in NOT_IN_THE_ZOO} <= known


def test_the_summary_counts_the_rows() -> None:
    *tables, total = paper_table("summary")
    assert [row["table"] for row in tables] == [table["title"] for table in papers().values()]
    assert int(total["rows"]) == len(ROWS) == sum(int(row["rows"]) for row in tables)
    for kind in KINDS:
        assert int(total[kind]) == sum(kind_of(row) == kind for _, row in ROWS)


def test_what_does_not_exist_is_missing() -> None:
    config, test = "coco/atss_R_50_FPN_rs_1x", "tests/losses/test_golden.py"
    assert exists(config) and exists(test) and not exists("coco/atss_R_50_FPN_rs_9x")
    assert kind_of({"by": [test, config]}) == "with a config"
    assert kind_of({"by": [test]}) == "with a test or page alone"
    assert kind_of({"by": [config, "coco/atss_R_50_FPN_rs_9x"]}) == "missing"
    assert kind_of({"note": "none"}) == "missing"
