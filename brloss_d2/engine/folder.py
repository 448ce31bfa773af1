"""The output folder: files of one run, written by one process at a time."""

import fcntl
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from typing import TextIO

from brloss_d2.errors import InputError
from brloss_d2.utils.text import printable

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last_checkpoint"
DATA_SHEET = "data.png"
REPORT = "report.html"
# What belongs to weights that are trained further.
ANALYSIS = ("calibration.json", "analysis", REPORT)
# What training, evaluation and analysis write, the mark to resume from first. log.txt goes on.
RUN_FILES = (
    *(LAST_CHECKPOINT, "model_final.pth", "model_final_ema.pth", "model_best.pth"),
    *("model_[0-9]*.pth", "metrics.json", "config.yaml", "categories.json", DATA_SHEET),
    *("events.out.tfevents.*", "wandb_run_id.txt", "inference", *ANALYSIS),
)
_LOCK = "run.lock"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"  # tells the starts of Linux machines apart
_LONGEST = 80  # characters of a name in a message
_RESUMABLE = re.compile(r"model_(\d{7}|final)\.pth")


def check_writable(path: str) -> None:
    """Check that a folder can be written to, or made.

    Raises:
        InputError: it cannot.
    """
    if not path:
        raise InputError("train.output_dir is empty: expected a folder.")
    existing = os.path.abspath(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise InputError(f"train.output_dir={path}: {existing} is no folder.")
    if not os.access(existing, os.W_OK):
        raise InputError(f"train.output_dir={path}: no permission to write in {existing}.")


@contextmanager
def reserved(folder: str) -> Iterator[None]:
    """Create a folder and keep other runs out of it inside the block.

    The lock belongs to the process and ends with it, whatever ends it, also if process numbers
    repeat, as in containers. A network folder may not tell one machine of the locks of another:
    there the file `run.lock`, which names the process, stays after a crash and has to be deleted.

    Args:
        folder: path of the folder.

    Raises:
        InputError: another run writes there, or the folder cannot be written.
    """
    path = os.path.join(folder, _LOCK)
    own = {"host": socket.gethostname(), "boot": "", "process": os.getpid()}
    own["since"] = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError), open(_BOOT_ID, encoding="ascii") as file:
        own["boot"] = file.read().strip()
    try:
        os.makedirs(folder, exist_ok=True)
        lock, is_free = _open_locked(path)
        try:
            other = {**dict.fromkeys(own, "?"), **json.load(lock)}
        except (ValueError, TypeError):  # new, or cut off by a crash
            other = own if is_free else dict.fromkeys(own, "?")
        is_here = other["host"] == own["host"] or other["boot"] == own["boot"] != ""
        text = f"process {other['process']} on {other['host']}, since {other['since']}"
        if not is_free:
            raise InputError(
                f"Another run writes to {folder} ({text}): wait until it has ended, or choose "
                "another train.output_dir."
            )
        if not is_here:
            raise InputError(
                f"A run on another machine writes to {folder} ({text}). If it has been killed, "
                f"delete {path}."
            )
        lock.truncate(0)
        json.dump(own, lock)
        lock.flush()
    except OSError as error:
        raise InputError(
            f"train.output_dir={folder}: cannot write there: {error.strerror}."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                os.remove(path)
        lock.close()


def set_aside(folder: str, patterns: Sequence[str]) -> str:
    """Move files of earlier weights to `<folder>/earlier_<number>`, where they stay together.

    Args:
        folder: output folder of a run that is about to start or to go on.
        patterns: `RUN_FILES`, all files of a run, or `ANALYSIS`.

    Returns:
        Path of the new folder; "" if there was nothing to move.
    """
    present = sorted(os.listdir(folder))
    names = [name for pattern in patterns for name in present if fnmatch(name, pattern)]
    if not names:
        return ""
    number = 1
    while os.path.exists(target := os.path.join(folder, f"earlier_{number}")):
        number += 1
    os.mkdir(target)
    for name in names:
        os.rename(os.path.join(folder, name), os.path.join(target, name))
    logger.warning("Files of an earlier training in %s are now in %s.", folder, target)
    return target


def find_last_checkpoint(folder: str) -> str:
    """Return the checkpoint that a run in this folder is resumed from; "" if there is none.

    Raises:
        InputError: `last_checkpoint` is damaged, or names no file in the folder.
    """
    mark = os.path.join(folder, LAST_CHECKPOINT)
    present = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    candidates = [name for name in present if _RESUMABLE.fullmatch(name)]
    names = [name for name in candidates if os.path.isfile(os.path.join(folder, name))]
    if not os.path.lexists(mark):
        if not names:
            return ""
        found = "does not exist"
    else:
        try:
            with open(mark, encoding="utf-8") as file:
                text = file.read().strip().strip("\0")
        except (OSError, UnicodeDecodeError):
            text = ""
        # A full path is that of this folder before it was moved, also from another machine.
        *parents, name = re.split(r"[/\\]", text)
        is_here = bool(name) and os.path.isfile(os.path.join(folder, name))
        if is_here and ".." not in parents:
            return os.path.join(folder, name)
        shown = printable(text, length=_LONGEST)
        missing = "is in another folder" if is_here else "does not exist"
        found = f"names {shown}, which {missing}" if text else "is empty or damaged"
    there = f"{folder} has {', '.join(names)}" if names else f"{folder} has no checkpoint"
    cure = "write the name of one of them into it"
    if not names:
        cure = "start a new run without --resume, or use weights by train.init_checkpoint=FILE"
    raise InputError(f"{mark} {found}; {there}: {cure}.")


def _open_locked(path: str) -> tuple[TextIO, bool]:
    """Open a lock file and lock it; return it with whether no other process has locked it."""
    while True:
        lock = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        lock.seek(0)
        try:
            # Unlike flock, not shared with the workers of data loaders, which may live longer.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return lock, False
        except OSError as error:
            logger.warning("Other runs cannot be kept out of the folder of %s: %s", path, error)
        if os.path.exists(path) and os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
            return lock, True
        lock.close()  # the run that had it has just ended, and has removed it
