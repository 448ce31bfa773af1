"""Origin of detectron2's files: one wheel on PyPI, identified by its hash."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from build_backend.errors import BuildError

REQUIREMENT = "labgym==3.1.2"
WHEEL = "labgym-3.1.2-py3-none-any.whl"
SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
FOLDER_VARIABLE = "BRLOSS_D2_WHEEL_DIR"

_WAY_OUT = (
    f"Without a network, put {WHEEL} into a folder and set {FOLDER_VARIABLE} to it, "
    "or install the real detectron2, which is used instead."
)


def fetch(scratch: Path) -> Path:
    """Return the path of the wheel, from the folder of the user if one is set, else from PyPI.

    Raises:
        BuildError: the wheel is not available, or has another hash.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(folder) / WHEEL if folder else _download(scratch)
    if not path.is_file():
        raise BuildError(f"{FOLDER_VARIABLE} is {folder!r}, but there is no {WHEEL} in it.")
    check_hash(path, SHA256)
    return path


def check_hash(path: Path, expected: str) -> None:
    """Raise `BuildError` unless the file's SHA-256 is `expected` (hexadecimal)."""
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != expected:
        raise BuildError(f"{path} has SHA-256\n  {got}, expected\n  {expected}. It is not used.")


def _download(scratch: Path) -> Path:
    # The wheel declares Python < 3.11 and tensorflow for parts that are never used here.
    options = ["--no-deps", "--ignore-requires-python", "--only-binary=:all:", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch)]
    result = subprocess.run([*command, REQUIREMENT], capture_output=True, text=True)
    path = scratch / WHEEL
    if result.returncode != 0 or not path.is_file():
        reason = result.stderr.strip() or "pip left no file"
        raise BuildError(f"cannot download {REQUIREMENT} from PyPI.\n{reason}\n{_WAY_OUT}")
    return path
