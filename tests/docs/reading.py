"""What the documents tell a user to type: code blocks, and the commands that bash makes of them."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "projects/*/README.md")
    for path in ROOT.glob(pattern)
)
SHELL, PYTHON = "sh", "python"
# Blocks that are not for typing.
OTHER = {"", "bibtex", "json", "math", "mermaid", "text", "yaml"}
_PROGRAM = r"(?:python\d?|make|pip|git|brloss-\w+|torchrun|srun|source|export|\.venv/\S+|\w+=\S+) "
# Bash itself takes the commands apart: each program is a function that notes how it was called.
_RECORDER = """
PATH=/nowhere
note() {
    { /usr/bin/env -0; printf '\\0%s\\0' "$LINE"; printf '%s\\0' "$@"; printf '\\0\\0'; } >&3
}
command_not_found_handle() { note "$@"; }
source() { note source "$@"; }
"""


class Block(NamedTuple):
    """Code of a document; `line` counts from 1."""

    language: str
    line: int
    text: str


class Command(NamedTuple):
    """A program with its arguments, after the shell, and the variables that were set for it."""

    line: int
    words: list[str]
    environment: dict[str, str]

    def __str__(self) -> str:
        return f"line {self.line}: {' '.join(self.words)}"


def read_blocks(text: str) -> list[Block]:
    """Find fenced blocks, indented blocks (those are for the shell) and commands in a line of text.

    Raises:
        ValueError: a fence in a language that is neither run nor known as harmless, or with
            commands but not marked as a shell's.
    """
    blocks, rest = [], text
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.M | re.S):
        block = Block(found[2], text.count("\n", 0, found.start()) + 2, found[3])
        _check(block)
        blocks.append(block)
        blank = re.sub(r"[^\n]", "", found[0])
        rest = rest.replace(found[0], blank, 1)
    blocks += _indented(rest)
    for found in re.finditer(r"`((?:python|make|brloss-\w+|torchrun|pip install) [^`]+)`", rest):
        blocks.append(Block(SHELL, rest.count("\n", 0, found.start()) + 1, found[1]))
    return sorted(blocks, key=lambda block: block.line)


def _check(block: Block) -> None:
    if block.language not in {SHELL, PYTHON, *OTHER}:
        raise ValueError(f"line {block.line}: who runs a block in {block.language!r}?")
    if not block.language and re.search(rf"^\$? *{_PROGRAM}", block.text, re.M):
        raise ValueError(f"line {block.line}: mark this block as ```sh")


def _indented(text: str) -> Iterator[Block]:
    lines = text.split("\n")
    start = None
    for number, line in enumerate([*lines, "end"]):
        inside = line.startswith("    ")
        if inside and start is None and number and not lines[number - 1].strip():
            start = number
        elif not inside and start is not None:
            yield Block(SHELL, start + 1, "\n".join(x[4:] for x in lines[start:number]))
            start = None


def read_commands(blocks: list[Block], variables: Mapping[str, str]) -> list[Command]:
    """Let bash expand the shell blocks of a document, one after the other, and run nothing.

    Args:
        blocks: blocks in any language.
        variables: values set beforehand, such as the folder of the reader's dataset.
    """
    shell = [f"LINE={b.line}\n{b.text}" for b in blocks if b.language == SHELL]
    # Bash would run a program given by its path, if it found one in the folder.
    paths = sorted(set(re.findall(r"\.venv/bin/[\w-]+", "".join(shell))))
    functions = [f'function {path} {{ note {path} "$@"; }}' for path in paths]
    settings = [f"{k}={v!r}" for k, v in variables.items()]
    script = "\n".join([_RECORDER, *functions, *settings, *shell])
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, TemporaryDirectory() as empty:
        done = subprocess.Popen(
            ["bash", "-c", f"exec 3>&{write}\n{script}"],
            pass_fds=[write],
            env={},
            cwd=empty,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(write)
        noted = pipe.read().decode()
    error = done.communicate()[1]
    if done.returncode or error:
        raise ValueError(f"bash refuses it: {error}")
    return [_command(entry) for entry in noted.split("\0\0\0")[:-1]]


def _command(entry: str) -> Command:
    environment, called = entry.split("\0\0", 1)
    line, *words = called.split("\0")
    variables = dict(variable.split("=", 1) for variable in environment.split("\0"))
    own = {k: v for k, v in variables.items() if k not in ("PATH", "PWD", "OLDPWD", "SHLVL", "_")}
    return Command(int(line), words, own)
