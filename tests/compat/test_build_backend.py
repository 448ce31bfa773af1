"""The build of compat/detectron2, on a made-up wheel of three files."""

import csv
import hashlib
import io
import re
import tarfile
from base64 import urlsafe_b64encode
from pathlib import Path
from zipfile import ZipFile

import build_backend
import pytest
from build_backend import metadata, origin, source
from build_backend.errors import BuildError
from build_backend.patches import PATCHES, Patch, apply_patch

FILES = {
    "LabGym/__init__.py": b"a file of the other package",
    "LabGym/detectron2/": b"",
    "LabGym/detectron2/__init__.py": b"from LabGym.detectron2.a import b\n",
    "LabGym/detectron2/a.py": b"import LabGym.detectron2.config as c\nb = old(1)\n",
    "LabGym/detectron2/configs/x.yaml": b"_BASE_: y.yaml\n",
    "labgym-3.1.2.dist-info/METADATA": b"Name: LabGym\n",
}
PATCH = Patch("detectron2/a.py", "old(", "new(", "old is gone")


@pytest.fixture
def make_wheel(tmp_path):
    def make(**changes: bytes) -> Path:
        path = tmp_path / origin.WHEEL
        with ZipFile(path, "w") as archive:
            for name, content in {**FILES, **changes}.items():
                archive.writestr(name, content)
        return path

    return make


@pytest.fixture
def own_wheel(make_wheel, monkeypatch):
    """Point the backend at the made-up wheel, as if it were the pinned one."""
    path = make_wheel()
    monkeypatch.setenv(origin.FOLDER_VARIABLE, str(path.parent))
    monkeypatch.setattr(origin, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(source.detectron2_files, "__defaults__", ((PATCH,),))
    return path


def test_takes_only_detectron2_and_renames_it(make_wheel):
    files = source.detectron2_files(make_wheel(), ())
    assert files == {
        "detectron2/__init__.py": b"from detectron2.a import b\n",
        "detectron2/a.py": b"import detectron2.config as c\nb = old(1)\n",
        "detectron2/configs/x.yaml": b"_BASE_: y.yaml\n",
    }


@pytest.mark.parametrize("left", [b"import LabGym\n", b"from LabGym import detectron2", b"#labgym"])
def test_refuses_what_is_left_of_the_other_name(left):
    with pytest.raises(BuildError, match=r"detectron2/x\.py still names LabGym"):
        source.rename("detectron2/x.py", left)


def test_refuses_a_wheel_without_detectron2(tmp_path):
    with ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(BuildError, match=r"other\.whl holds no LabGym/detectron2/__init__\.py"):
        source.detectron2_files(tmp_path / "other.whl")


def test_patches_and_says_so_once(make_wheel):
    again = Patch(PATCH.path, "b = ", "c = ", PATCH.why)
    text = source.detectron2_files(make_wheel(), (PATCH, again))["detectron2/a.py"].decode()
    assert text.startswith("import detectron2.config as c\nc = new(1)\n")
    assert text.count("# Changed at install") == 1 and text.endswith("old is gone.\n")


@pytest.mark.parametrize(("text", "found"), [("x = 1", 0), ("old(old(1))", 2)])
def test_a_patch_whose_place_is_not_found_once_fails(text, found):
    with pytest.raises(BuildError, match=rf"'old\(' {found} times, expected 1 \(old is gone\)"):
        apply_patch(text, PATCH)


def test_a_patch_of_a_missing_file_fails(make_wheel):
    with pytest.raises(BuildError, match=r"no detectron2/gone\.py to patch"):
        source.detectron2_files(make_wheel(), (Patch("detectron2/gone.py", "a", "b", "c"),))


def test_the_real_patches_change_something_and_stay_valid_python():
    for item in PATCHES:
        assert item.old != item.new
        compile(item.new.strip(), item.path, "exec")


def test_refuses_another_file_of_that_name(make_wheel, monkeypatch):
    path = make_wheel()
    monkeypatch.setenv(origin.FOLDER_VARIABLE, str(path.parent))
    with pytest.raises(BuildError, match=origin.SHA256):
        origin.fetch(path.parent)


def test_names_the_folder_that_lacks_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setenv(origin.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(BuildError, match=re.escape(f"{str(tmp_path)!r}, but there is no labgym")):
        origin.fetch(tmp_path)


def test_a_failed_download_says_why_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv(origin.FOLDER_VARIABLE, raising=False)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": "", "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(BuildError) as caught:
        origin.fetch(tmp_path)
    message = str(caught.value)
    assert "cannot download labgym==3.1.2" in message and "No matching distribution" in message
    assert origin.FOLDER_VARIABLE in message and "real detectron2" in message


def test_build_ends_with_a_message_and_writes_nothing(own_wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "SHA256", "0" * 64)
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(SystemExit, match=r"detectron2 \(compat\): .* has SHA-256"):
        build_backend.build_wheel(str(target))
    assert list(target.iterdir()) == []


def test_record_lists_every_file_with_its_hash_and_size(own_wheel, tmp_path):
    with ZipFile(tmp_path / build_backend.build_wheel(str(tmp_path))) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    record_name = f"{metadata.DIST_INFO}/RECORD"
    rows = list(csv.reader(io.StringIO(contents[record_name].decode())))
    assert [row[0] for row in rows] == list(contents)
    for name, digest, size in rows[:-1]:
        sha256 = hashlib.sha256(contents[name]).digest()
        assert digest == "sha256=" + urlsafe_b64encode(sha256).decode().rstrip("=")
        assert int(size) == len(contents[name])
    assert rows[-1] == [record_name, "", ""]
    assert "detectron2/a.py" in contents and not any("abGym" in name for name in contents)


def test_wheel_is_reproducible(own_wheel, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    names = [build_backend.build_wheel(str(folder)) for folder in (first, second)]
    assert (first / names[0]).read_bytes() == (second / names[1]).read_bytes()


def test_metadata_needs_no_wheel_and_is_that_of_the_wheel(own_wheel, tmp_path):
    name = build_backend.build_wheel(str(tmp_path))
    own_wheel.unlink()
    folder = tmp_path / build_backend.prepare_metadata_for_build_wheel(str(tmp_path))
    with ZipFile(tmp_path / name) as archive:
        for path in (path for path in folder.rglob("*") if path.is_file()):
            assert archive.read(path.relative_to(tmp_path).as_posix()) == path.read_bytes()
    lines = (folder / "METADATA").read_text().splitlines()
    assert {"Name: detectron2", "Version: 0.6+b7ff946", "License-Expression: Apache-2.0"} <= {
        *lines
    }
    assert "Requires-Dist: fvcore>=0.1.5" in lines
    assert {"LICENSE", "NOTICE"} == {path.name for path in (folder / "licenses").iterdir()}


def test_sdist_builds_the_same_wheel_files(tmp_path):
    with tarfile.open(tmp_path / build_backend.build_sdist(str(tmp_path))) as archive:
        names = {name.removeprefix(f"{metadata.STEM}/") for name in archive.getnames()}
    tree = {p.relative_to(build_backend.ROOT) for p in build_backend.ROOT.rglob("*") if p.is_file()}
    tracked = {p.as_posix() for p in tree if "__pycache__" not in p.parts}
    assert names == tracked | {"PKG-INFO"}
