"""Which detectron2 `make` chooses: environments with made-up packages, nothing is installed."""

import re
import subprocess
import sys
from pathlib import Path

import install
import pytest


@pytest.fixture
def make_venv(tmp_path):
    def make(name: str) -> Path:
        folder = tmp_path / name
        command = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)]
        subprocess.run(command, check=True)
        return folder / "bin" / "python"

    return make


def add_package(python: Path, version: str, name: str = "detectron2") -> None:
    purelib = Path(install.ask(python, install._SITE_PACKAGES))
    for path, text in {
        f"{name}/__init__.py": "raise RuntimeError('imported, not only looked for')",
        f"{name}-{version}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n",
    }.items():
        (purelib / path).parent.mkdir(exist_ok=True)
        (purelib / path).write_text(text)


def run_by(python: Path, monkeypatch) -> None:
    """Let `python` be the interpreter that runs the installation."""
    purelib = install.ask(python, install._SITE_PACKAGES)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(install.site, "getsitepackages", lambda: [purelib])
    monkeypatch.setattr(install.site, "ENABLE_USER_SITE", False)


@pytest.fixture
def venv(make_venv, monkeypatch):
    python = make_venv("venv")
    run_by(python, monkeypatch)
    return python


def test_ours_is_installed_where_there_is_none(venv):
    assert not install.find_foreign_detectron2(venv)


def test_ours_is_not_taken_for_the_real_one(venv):
    add_package(venv, install.compat_version())
    assert not install.find_foreign_detectron2(venv)


def test_a_real_one_inside_wins(venv):
    add_package(venv, "0.6")
    assert install.find_foreign_detectron2(venv)


def test_one_beside_the_python_is_made_visible(venv, make_venv, monkeypatch):
    user = make_venv("user")
    add_package(user, "0.6+cu121")
    run_by(user, monkeypatch)
    assert install.find_foreign_detectron2(venv)
    assert install.version_of(venv, "detectron2") == "0.6+cu121"
    run_by(venv, monkeypatch)  # a second `make`, from the activated environment
    assert install.find_foreign_detectron2(venv)


def test_an_editable_one_is_made_visible(venv, make_venv, monkeypatch, tmp_path):
    user, purelib = make_venv("user"), tmp_path / "source"
    (purelib / "detectron2").mkdir(parents=True)
    (purelib / "detectron2" / "__init__.py").touch()
    Path(install.ask(user, install._SITE_PACKAGES), "editable.pth").write_text(f"{purelib}\n")
    run_by(user, monkeypatch)
    assert install.find_foreign_detectron2(venv)
    assert install.version_of(venv, "detectron2") == "unknown"


def test_the_users_torch_is_kept(venv, monkeypatch):
    add_package(venv, "2.5.1+cu121", "torch")
    calls = []
    monkeypatch.setattr(install, "pip_install", lambda python, *arguments: calls.append(arguments))
    install.use_detectron2(venv)
    (arguments,) = calls
    assert arguments[0] == "-c" and Path(arguments[1]).read_text() == "torch==2.5.1+cu121\n"
    assert "opencv-python-headless" in arguments and str(install.COMPAT) not in arguments


def test_a_folder_of_that_name_is_no_package(venv, monkeypatch, tmp_path):
    (tmp_path / "clone" / "detectron2").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "clone"))
    assert install.version_of(venv, "detectron2") == ""


def test_compat_version_is_that_of_the_build():
    from build_backend import metadata

    assert f"detectron2-{install.compat_version()}" == metadata.STEM


def test_lock_pins_one_version_of_each_package_for_every_python():
    from packaging.requirements import Requirement

    lines = (install.ROOT / "requirements" / "lock.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and line[0] != "#"]
    for python in ("3.10", "3.11", "3.12", "3.13"):
        environment = {"python_version": python}
        names = [r.name for r in requirements if not r.marker or r.marker.evaluate(environment)]
        assert len(names) == len(set(names))
    assert all(str(r.specifier).startswith("==") for r in requirements)


def test_the_oldest_versions_are_those_that_are_promised():
    """`make oldest` tests what pyproject.toml promises."""
    text = (install.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    promised = dict(re.findall(r'"([a-z-]+)(?:\[.*?\])?>=([0-9.]+)"', listed))
    pins = (install.ROOT / "requirements" / "oldest.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([a-z-]+)==(\S+)$", pins, re.MULTILINE))
    assert len(promised) == listed.count(">=") > 10
    assert tested.keys() == promised.keys()
    for name, lowest in promised.items():
        assert re.fullmatch(rf"{re.escape(lowest)}(\.0)*(\.post\d+)?", tested[name]), name
