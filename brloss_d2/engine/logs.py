"""Log of a run: log.txt has everything, the terminal what a user has to know."""

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO

from detectron2.utils import comm
from tqdm import tqdm

from brloss_d2.utils.terminal import discard, printable_lines

_ROOTS = ("brloss_d2", "detectron2", "fvcore")
# Loggers of others whose lines reach the terminal: skipped weights, and while no progress bar is
# shown the metrics and the progress of evaluations.
_WEIGHTS = ("fvcore.common.checkpoint", "detectron2.checkpoint")
_METRICS = "detectron2.utils.events"
_EVALUATION = "detectron2.evaluation.evaluator"
_MOST_LINES = 40  # of one message on a terminal


class Console(logging.Handler):
    """Handler for the terminal, above a progress bar if there is one.

    It shows the package's messages from INFO on, so that DEBUG is for log.txt alone, and long ones
    in part. If nobody reads any more, such as after `| head`, the run continues without it.

    Args:
        stream: stream to write to, as the terminal gets it.
    """

    def __init__(self, stream: TextIO):
        super().__init__(logging.INFO)
        self.stream = getattr(stream, "stream", stream)
        self._has_failed = False
        self.has_bar = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        with suppress(OSError, ValueError):  # no size, or no file behind the stream
            # Some programs open terminals without rows, in which tqdm would show nothing.
            self.has_bar &= os.get_terminal_size(self.stream.fileno()).lines > 0
        self.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m/%d %H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record above the progress bars."""
        try:
            with tqdm.external_write_mode(file=self.stream):
                self.stream.write(f"{self.format(record)}\n")
                self.stream.flush()
        except (OSError, ValueError) as error:
            if self._has_failed:
                return
            self._has_failed = True
            with suppress(OSError, ValueError):
                print(f"warning: no more output here ({error}); the run continues", file=sys.stderr)
            with suppress(OSError, ValueError):
                discard(self.stream)

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines to show, with the level of warnings and errors."""
        text = printable_lines(super().format(record))
        if record.levelno >= logging.WARNING:
            text = text.replace("] ", f"] {record.levelname}: ", 1)
        lines = text.split("\n")
        if len(lines) > _MOST_LINES:
            kept = _MOST_LINES - 2
            lines[kept:-1] = [f"... ({len(lines) - kept - 1} more lines in log.txt)"]
        return "\n".join(lines)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to show a record."""
        if record.name.startswith("brloss_d2") or record.levelno >= logging.ERROR:
            return True
        if record.name.startswith(_WEIGHTS):
            return record.levelno >= logging.WARNING
        if record.name == _EVALUATION:
            return not self.has_bar and str(record.msg).startswith("Inference done")
        return record.name == _METRICS and not self.has_bar


class LogFile(logging.FileHandler):
    """Handler for log.txt; a full disk is told once, and ends the run only at a checkpoint.

    Args:
        path: path of the file, which is continued.
    """

    def __init__(self, path: str):
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._has_failed = False

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines to write."""
        return printable_lines(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Tell the first error of the disk on stderr."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            print(f"warning: {self.baseFilename}: {error}", file=sys.stderr)


def set_up_logging(folder: str) -> None:
    """Log to the terminal, in the main process, and to log.txt, `log.txt.rank1` and so on.

    Args:
        folder: folder of the files, made if necessary.

    Raises:
        OSError: the file cannot be written.
    """
    rank = comm.get_rank()
    os.makedirs(folder, exist_ok=True)
    file = LogFile(os.path.join(folder, f"log.txt.rank{rank}" if rank else "log.txt"))
    file.setFormatter(
        logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S")
    )
    handlers: list[logging.Handler] = [file]
    if rank == 0:
        handlers.append(Console(sys.stdout))
    for name in _ROOTS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in logger.handlers[:]:  # of an earlier run of this process
            logger.removeHandler(handler)
            handler.close()
        for handler in handlers:
            logger.addHandler(handler)


def progress_bar(total: int, title: str = "", *, done: int = 0, leave: bool = True) -> tqdm:
    """Return a progress bar below the lines of the log; an invisible one if no terminal is there.

    Args:
        total: number of steps.
        title: text before the bar.
        done: number of steps before the first.
        leave: whether the bar stays when it is closed.
    """
    console = next(
        (h for h in logging.getLogger(_ROOTS[0]).handlers if isinstance(h, Console)), None
    )
    return tqdm(
        total=total,
        desc=title,
        initial=done,
        leave=leave,
        file=console and console.stream,
        disable=console is None or not console.has_bar,
        dynamic_ncols=True,
        unit="it",
    )
