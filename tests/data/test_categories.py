import json
from pathlib import Path

import pytest

from brloss_d2.data import read_categories, write_categories
from brloss_d2.errors import InputError


def test_there_and_back(tmp_path: Path) -> None:
    categories = {4: "Mutter", 9: "Schräubchen ☺"}
    write_categories(str(tmp_path), categories)
    assert read_categories(str(tmp_path / "categories.json")) == categories


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "has no categories: expected"),
        ({"categories": []}, "has no categories: expected"),
        ({"categories": [{"id": "x", "name": "a"}]}, "1 of 1 categories have no integer id"),
        (
            {"categories": [{"id": 1}]},
            r"1 of 1 categories have no name that is text: id 1 \(no name\)",
        ),
    ],
)
def test_bad_files(tmp_path: Path, content, expected: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=expected):
        read_categories(str(file))
    with pytest.raises(InputError, match=r"Cannot read categories from .*gone\.json"):
        read_categories(str(tmp_path / "gone.json"))
