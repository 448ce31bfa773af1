"""Atomic replacement of files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replacing(file: str) -> Iterator[str]:
    """Yield the name of a temporary file, which replaces `file` if the block raises nothing.

    A crash in the block leaves the old file as it was.
    """
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
