"""Standard output and error of the programs: what reaches a terminal, and what never does."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from brloss_d2.utils.faults import machine_fault
from brloss_d2.utils.text import printable

# Packages whose warnings no user can fix.
_OTHERS = (
    r"(torch|torchvision|detectron2|fvcore|iopath|omegaconf|pkg_resources|setuptools|matplotlib|"
    r"numpy|scipy|PIL|pycocotools|hotcoco|lvis|onnx|onnxruntime|onnxscript|tensorboard|timm|"
    r"brloss_d2)(\.|$)"
)
# Loggers of torch that warn of what detectron2 does, or that processes end. The levels of those
# above them are reset when torch is imported.
_LOUD = ("torch.fx._symbolic_trace", "torch.utils.cpp_extension", "torch.multiprocessing.spawn")


def printable_lines(text: str) -> str:
    """Return text of several lines without other codes that a terminal would obey."""
    if text.isascii() and text.replace("\n", "").isprintable():  # as almost all
        return text
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))


class PrintableStream:
    """Stream of text that shows the codes which a terminal would obey, but for line breaks.

    Args:
        stream: stream to write to. A progress bar writes to it directly.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        # Downloads show their progress in lines that begin with a carriage return.
        start = "\r" if text.startswith("\r") else ""
        self.stream.write(start + printable_lines(text.removeprefix(start)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def clean_output() -> Iterator[None]:
    """Make everything that a block prints safe, whoever prints it.

    Names of classes and files are shown without codes that a terminal would obey, as escapes if
    the terminal cannot show their letters, and nowhere if the program has been started without
    standard output. Warnings of other packages are hidden unless Python was asked for warnings,
    and so are faults of the machine in threads, whose owners raise them again.
    """
    before, hook = (sys.stdout, sys.stderr), threading.excepthook
    threading.excepthook = lambda args: None if machine_fault(args.exc_value) else hook(args)
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if stream is None:  # closed by the shell: `>&-`
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if not isinstance(stream, PrintableStream):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, PrintableStream(stream))
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.filterwarnings("ignore", module=_OTHERS)
            for name in _LOUD:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
    finally:
        (sys.stdout, sys.stderr), threading.excepthook = before, hook


@contextmanager
def silenced(names: Sequence[str]) -> Iterator[None]:
    """Hide warnings, and all that loggers say, within a block whose errors say it better.

    Args:
        names: names of the loggers.
    """
    logs = [logging.getLogger(name) for name in names]
    before = [log.disabled for log in logs]
    try:
        for log in logs:
            log.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled


def discard(stream: TextIO) -> None:
    """Throw away what is written to a stream from now on, because nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
