"""Reproducible archives: the same files always give the same bytes."""

import csv
import hashlib
import io
import tarfile
from base64 import urlsafe_b64encode
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_MODE = 0o100644 << 16


def write(path: Path, files: dict[str, bytes]) -> None:
    """Write a wheel of `files` (archive name to content) and the RECORD made from them."""
    folder = next(name.partition("/")[0] for name in files if ".dist-info/" in name)
    record_name = f"{folder}/RECORD"
    with ZipFile(path, "w") as archive:
        for name, content in {**files, record_name: record(files, record_name)}.items():
            info = ZipInfo(name)  # dated 1980-01-01
            info.external_attr, info.compress_type = _MODE, ZIP_DEFLATED
            archive.writestr(info, content)


def record(files: dict[str, bytes], record_name: str) -> bytes:
    """Return RECORD: name, hash and size of each file; RECORD itself has no hash and no size."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, content in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(content)))
    rows.writerow((record_name, "", ""))
    return text.getvalue().encode()


def add_to_tar(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add bytes to a tar archive as a file."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
