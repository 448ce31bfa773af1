"""Writing of files: atomic replacement, folders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from brloss_d2.errors import InputError
from brloss_d2.utils.text import printable


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
