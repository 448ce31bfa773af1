"""Files from strangers run no code: no call in the repository that would let them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("brloss_d2", "compat", "configs", "demo", "projects", "requirements", "tests", "tools")

# Each runs code that a file or a string brings along; with where it is needed, and why.
FORBIDDEN: dict[str, set[str]] = {
    "eval": set(),
    "exec": set(),
    "os.system": set(),
    "os.popen": set(),
    "pickle.load": set(),
    # A test shows that the attack it defends from would work.
    "pickle.loads": {"tests/checkpoint/test_array_pickle.py"},
    # A subclass that finds no functions.
    "pickle.Unpickler": set(),
    "pickle._Unpickler": {"brloss_d2/checkpoint/files.py"},
    "cloudpickle.load": set(),
    "cloudpickle.loads": set(),
    "dill.load": set(),
    "joblib.load": set(),
    "marshal.load": set(),
    "marshal.loads": set(),
    "shelve.open": set(),
    "pandas.read_pickle": set(),
    "torch.hub.load": set(),
    # A TorchScript file is a program: only what the test has just written.
    "torch.jit.load": {
        "tests/prediction/test_export_formats.py",
        "tests/cli/test_export.py",
        "tests/projects/co_detr/test_export.py",
    },
    "yaml.load": set(),
    "yaml.full_load": set(),
    "yaml.unsafe_load": set(),
}
ALIASES = {"np": "numpy", "pd": "pandas"}


def calls(source: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the dotted names that are mentioned, and where; imported names with their module."""
    imported: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update({a.asname: a.name for a in node.names if a.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            yield imported.get(first, ALIASES.get(first, first)) + dot + rest, node


def problems(source: str) -> list[str]:
    """Forbidden names and arguments in a source, each with its line."""
    found = [(name, node) for name, node in calls(source) if name in FORBIDDEN]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found += [(what, node) for what in _bad_arguments(node)]
    return [f"{name} ({node.lineno})" for name, node in found]


def _bad_arguments(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if given.get("allow_pickle", "False") != "False":
        yield "allow_pickle"
    if given.get("shell", "False") != "False":
        yield "shell"


def sources() -> list[Path]:
    nested = [p for f in FOLDERS for p in (ROOT / f).rglob("*.py")]
    return sorted([*nested, *ROOT.glob("*.py")])


def test_no_file_brings_code_along() -> None:
    assert len(sources()) > 200
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        allowed = {call for call, where in FORBIDDEN.items() if name in where}
        left = [p for p in problems(path.read_text("utf-8")) if p.split(" (")[0] not in allowed]
        assert not left, f"{name}: {', '.join(left)}; see docs/security.md"


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import torch\ntorch.load('a')",
        "import torch\ntorch.load('a', weights_only=False)",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
        "import pickle as p\np.load(file)",
        "from pickle import loads\nloads(b'')",
        "from yaml import unsafe_load as load\nload('a')",
        "import yaml\nyaml.load(f, Loader=yaml.SafeLoader)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert problems(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import torch\ntorch.load('a', weights_only=True)",
        "import json\njson.load(f)",
    ],
)
def test_the_search_passes(source: str) -> None:
    assert not problems(source)
