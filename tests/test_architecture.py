"""The design as tests: what imports what, and what exists once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONG

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "brloss_d2"

# Which sub-packages each may import. `errors` and `utils` are free for all.
ALLOWED = {
    "utils": set(),
    "ops": set(),
    "losses": {"ops"},
    "criteria": {"losses", "ops"},
    # The configs by name, for YAML users: `modeling.yaml`.
    "modeling": {"checkpoint", "criteria", "losses", "model_zoo"},
    "data": set(),
    "evaluation": {"data"},
    # Projects register the names of their weights.
    "checkpoint": {"projects"},
    "plotting": {"data", "evaluation"},
    # The loss of a config by its name: `engine.config.short_keys`; fixed statistics: `freeze`; the
    # sheet of a run's data: `engine.data_sheet`.
    "engine": {"checkpoint", "data", "evaluation", "model_zoo", "modeling", "plotting"},
    "prediction": {"checkpoint", "data", "engine", "evaluation", "plotting"},
    # Names of configs; what they describe is built elsewhere.
    "model_zoo": set(),
    "cli": {"checkpoint", "data", "engine", "evaluation", "model_zoo", "plotting", "prediction"},
    # Finds the projects; nothing of the package names one.
    "projects": set(),
}
TORCH_ONLY = ("ops", "losses", "criteria")
FOLDERS = {
    *("benchmarks", "brloss_d2", "compat", "configs", "demo", "docs", "projects", "requirements"),
    *("tests", "tools"),
}
# Folders of tests that are not named after a part of the package.
OTHER_TESTS = {"curves", "benchmarks", "compat", "configs", "docs", "tools"}


def modules(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports."""
    package = ("brloss_d2", *path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def parts() -> set[str]:
    return {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}


def test_every_part_is_known():
    assert parts() == set(ALLOWED)


def test_every_folder_is_known():
    """A new one belongs into CONTRIBUTING.md, too."""
    found = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    assert found >= FOLDERS
    command = ["git", "ls-files", "--", *sorted(found - FOLDERS)]
    if found > FOLDERS and (ROOT / ".git").exists():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "", "folders under version control that FOLDERS does not name"


def test_tests_mirror_the_package():
    folders = {p.name for p in (ROOT / "tests").iterdir() if any(p.glob("**/test_*.py"))}
    assert folders - OTHER_TESTS <= parts()
    assert folders >= OTHER_TESTS


def test_every_folder_of_tests_is_a_package():
    for path in (ROOT / "tests").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path.parent


def test_nothing_edits_the_path_of_imports():
    """Tests and programs find each other by their place: `pythonpath` in pyproject.toml."""
    for folder in ("benchmarks", "brloss_d2", "demo", "tests", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    assert not ast.unparse(node.func).startswith("sys.path."), (path, node.lineno)


def test_the_package_names_no_project():
    projects = [p.name for p in (ROOT / "projects").iterdir() if p.is_dir()]
    assert projects
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not [name for name in projects if name in text], path


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_run_one_way(part):
    allowed = ALLOWED[part] | {part, "errors", "utils"}
    for path in modules(part):
        own = {n.split(".")[1] for n in imports(path) if n.startswith("brloss_d2.")}
        assert own & parts() <= allowed, path


@pytest.mark.parametrize("part", TORCH_ONLY)
def test_the_lower_layers_need_torch_alone(part):
    for path in modules(part):
        outside = {n.split(".")[0] for n in imports(path)} - {"brloss_d2"}
        # Kernels; `ops/dispatch.py` imports them when they are needed.
        kernels = {"triton"} if path.parent.name == "triton" else set()
        assert outside - set(sys.stdlib_module_names) <= {"torch"} | kernels, path
        # One line at debug level is all they say.
        assert "logging" not in outside or path.stem == "dispatch", path


def test_the_lower_layers_import_without_detectron2_and_triton():
    code = (
        "import sys\n"
        "for name in ('detectron2', 'triton', 'torchvision', 'fvcore', 'omegaconf'):\n"
        "    sys.modules[name] = None\n"
        "import brloss_d2.criteria\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_one_file_of_autograd_functions():
    found = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("autograd.Function") for base in node.bases)
    }
    assert found == {"autograd.py"}


def test_no_cuda_calls_and_no_syncs_in_the_lower_layers():
    for part in TORCH_ONLY:
        for path in modules(part):
            nodes = ast.walk(ast.parse(path.read_text()))
            found = [n.attr for n in nodes if isinstance(n, ast.Attribute)]
            # Rows that other processes send, positives that a pool of images has or of many pools
            # overlap their objects, and values that are checked, on a CPU only.
            known = {
                "pool_group.py": ["tolist"],
                "matched.py": ["tolist", "tolist"],
                "base.py": ["item", "item", "tolist"],
            }.get(path.name, [])
            assert [x for x in found if x in ("cuda", "item", "tolist")] == known, path


def test_the_long_tests_are_where_they_are_looked_for():
    assert all((ROOT / "tests" / name).exists() for name in LONG)
