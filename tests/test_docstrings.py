"""What ruff does not check: how descriptions of arguments begin, and methods without one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    *sorted((ROOT / "brloss_d2").rglob("*.py")),
    *sorted((ROOT / "projects").glob("*/*/**/*.py")),
    *sorted((ROOT / "tools").rglob("*.py")),
]
# Rooms that are not clean yet.
NOT_YET = {"brloss_d2/modeling"}
PREPOSITION = re.compile(
    r"(?!at least)(after|as|at|before|between|by|for|from|in|into|of|on|over|per|to|under|until|up|"
    r"with|within)\b",
    re.IGNORECASE,
)
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields):\n((?:    .*\n?|\n)+)", re.M)
# Methods whose contract torch, detectron2 or a protocol gives; the class says the rest.
INHERITED = {
    "after_step", "after_train", "apply_box", "apply_image", "before_step", "before_train", "close",
    "extra_repr", "forward", "from_config", "get_transform", "load_state_dict", "run", "state_dict",
    "train", "write",
}  # fmt: skip


def descriptions(docstring: str) -> Iterator[str]:
    """Yield the text that describes each argument, attribute and return value."""
    for title, body in SECTION.findall(docstring):
        if title in ("Args", "Attributes"):
            yield from re.findall(r"^    [*\w, ]+: ?(.*)", body, re.M)
        else:
            yield body.strip()


def documented(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_descriptions_are_noun_phrases(path: Path) -> None:
    found = [
        text
        for docstring in documented(path)
        for text in descriptions(docstring)
        if PREPOSITION.match(text)
    ]
    assert not found, f"{path}: these descriptions start with a preposition: {found}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_methods_are_described(path: Path) -> None:
    bare = [
        f"{owner.name}.{method.name}"
        for owner in ast.walk(ast.parse(path.read_text()))
        if isinstance(owner, ast.ClassDef) and not owner.name.startswith("_")
        for method in owner.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
        if method.name not in INHERITED and not ast.get_docstring(method)
    ]
    assert not bare, f"{path}: public methods without a docstring: {bare}"


def test_descriptions_are_found() -> None:
    docstring = "Title.\n\nArgs:\n    a: number of boxes\n        of an image\n    b, c: of a box\n"
    assert list(descriptions(docstring)) == ["number of boxes", "of a box"]
    assert list(descriptions("Title.\n\nReturns:\n    (N, 4) boxes.\n")) == ["(N, 4) boxes."]
