"""Writing of files, and what files are instead of what is expected."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from brloss_d2.errors import InputError
from brloss_d2.utils.text import printable

# First bytes of files, what these are, and the cure if that is not another file.
_KINDS = (
    (rb"version https:", "a pointer of Git LFS instead of the file itself", "run git lfs pull"),
    (rb"<(?i:!doctype|html|head|body|!--)", "a web page", "download the file itself"),
    (rb"<", "XML", "download the file itself, or export it in another format"),
    (rb"[{\[]", "JSON", ""),
    (rb".{,5}\0{3}\{\s*\"", "a safetensors file", "convert it: torch.save(load_file(OLD), NEW)"),
    (rb".{128}DICM", "DICOM", "convert it to PNG"),
    (rb".{4}ftyp(hei|hev|mif1)", "HEIC, a format of phones", "convert it to JPEG"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0{4}|RIFF.{4}WEBP|II\*\0|MM\0\*", "an image", ""),
    (rb"\0{4}", "zeros, as of a copy that was broken off", "copy it again"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc|Rar!|.{257}ustar", "a packed archive", "unpack it"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes it", ""),
    (rb"\x93NUMPY", "a NumPy array", ""),
    (rb"\x08.{,3}\x12.{1,2}(?i:pytorch)", "an ONNX file", "name what it was made from"),
)


@contextmanager
def replacing(file: str) -> Iterator[str]:
    """Yield the name of a temporary file, which replaces `file` if the block raises nothing.

    A crash in the block leaves the old file as it was.

    Args:
        file: path of the file to write or replace.
    """
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def write_text(file: str, text: str) -> None:
    """Write or replace a file, complete or not at all; its folder is made if necessary.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(file)), exist_ok=True)
        with replacing(file) as temporary, open(temporary, "w", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise InputError(f"Cannot write {printable(file)}: {error.strerror}.") from error


def check_folder_of(file: str) -> None:
    """Check that the folder of a file to be written exists.

    Raises:
        InputError: there is no such folder, or the path is a folder itself.
    """
    if not file or os.path.isdir(file):
        raise InputError(f"Cannot write {printable(file) or 'to an empty name'}: name a file.")
    folder, name = os.path.split(os.path.abspath(file))
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder} to write {name} to.")


def check_not_input(target: str, source: str, what: str) -> None:
    """Check that a file to be written does not replace what it is made from.

    Args:
        target: path of the file to be written.
        source: path of the file that is read; it need not exist.
        what: what is to be written, as messages call it.

    Raises:
        InputError: both are the same file.
    """
    if os.path.realpath(target) == os.path.realpath(source):
        raise InputError(
            f"{printable(source)} would be replaced by {what}: choose another output folder."
        )


def what_instead(path: str) -> str:
    """Return what is wrong with a path that should be a file or a folder and is not.

    Args:
        path: path of what was expected.

    Returns:
        End of a sentence, such as "does not exist" or "is a folder".
    """
    kinds = {
        "is a folder": os.path.isdir(path),
        "is a file; expected a folder (unpack it, if it is an archive)": os.path.isfile(path),
        "is a device, pipe or socket": os.path.exists(path),
        "is a link that leads nowhere": os.path.islink(path),
    }
    return next((what for what, applies in kinds.items() if applies), "does not exist")


def kind_of_content(start: bytes, expected: str) -> tuple[str, str]:
    """Return what a file is, and what to do if it should be something else.

    Args:
        start: first 512 bytes of the file.
        expected: noun for what it should be, such as "an image".

    Returns:
        Nouns, such as "a web page" or `expected`, and a request; both "" if the bytes are of no
        kind that is often taken for another.
    """
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, kind, cure in _KINDS:
        if re.match(pattern, start, re.DOTALL):
            return kind, cure or f"expected {expected}"
    return "", ""
