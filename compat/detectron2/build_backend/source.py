"""Files of detectron2 from those of the upstream wheel."""

from pathlib import Path
from zipfile import ZipFile

from build_backend.errors import BuildError
from build_backend.patches import PATCHES, Patch, apply_patch

PREFIX = "LabGym/detectron2/"


def detectron2_files(path: Path, patches: tuple[Patch, ...] = PATCHES) -> dict[str, bytes]:
    """Return `{"detectron2/...": content}` of the wheel at `path`: renamed and patched.

    Raises:
        BuildError: the wheel has no such files, or they are not those the patches were made for.
    """
    files = {name: rename(name, content) for name, content in _read(path).items()}
    for item in patches:
        if item.path not in files:
            raise BuildError(f"there is no {item.path} to patch ({item.why}).")
        files[item.path] = apply_patch(files[item.path].decode(), item).encode()
    return files


def rename(name: str, content: bytes) -> bytes:
    """Undo the renaming `detectron2` -> `LabGym.detectron2` in one file.

    Raises:
        BuildError: the name of the other package is left somewhere.
    """
    content = content.replace(b"LabGym.detectron2", b"detectron2")
    if b"labgym" in content.lower():
        raise BuildError(f"{name} still names LabGym after its imports were renamed.")
    return content


def _read(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith(PREFIX)]
        files = {name.partition("/")[2]: archive.read(name) for name in names if name[-1] != "/"}
    if "detectron2/__init__.py" not in files:
        raise BuildError(f"{path.name} holds no {PREFIX}__init__.py.")
    return files
