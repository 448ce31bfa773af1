"""Read and write checkpoint files without running code of theirs and without losing them."""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from brloss_d2.errors import InputError

_OTHER_OBJECT = re.compile(r"GLOBAL (\S+) was not an allowed global")


def read_checkpoint(file: str) -> dict[str, Any]:
    """Load a checkpoint to the CPU; its pickled code does not run.

    Raises:
        InputError: the file is missing, damaged, holds more than weights and plain values, or is
            no dictionary.
    """
    if not os.path.isfile(file):
        raise InputError(f"Checkpoint missing: {file}")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"Cannot read checkpoint {file}: {_reason(error)}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"Checkpoint {file}: expected a state dict, got {type(loaded).__name__}.")
    return loaded


@contextmanager
def replacing(file: str) -> Iterator[str]:
    """Give the name of a temporary file that takes the place of `file` when all went well."""
    temporary = f"{file}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _reason(error: Exception) -> str:
    if match := _OTHER_OBJECT.search(str(error)):
        return (
            f"beside weights it holds an object that needs {match[1]}, and such objects can run "
            "code. If you trust its origin, load it with torch.load(FILE, weights_only=False), "
            "and save its weights alone."
        )
    line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return f"{line}. It is damaged, or no checkpoint."
