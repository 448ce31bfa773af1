"""How commands are found in the documents, and that none slips through."""

import re

import pytest

from tests.docs.quick import NOT_RUN, PLACEHOLDERS, QUICK, VARIABLES, quick_form
from tests.docs.reading import DOCUMENTS, ROOT, Command, read_blocks, read_commands


def commands(text: str) -> list[Command]:
    return read_commands(read_blocks(text), VARIABLES)


def words(text: str) -> list[list[str]]:
    return [command.words for command in commands(text)]


@pytest.fixture(scope="module")
def all_commands() -> list[Command]:
    return [c for name in DOCUMENTS for c in commands((ROOT / name).read_text())]


def test_fenced_indented_and_inline_commands_are_found() -> None:
    text = (
        "# Title\n\n```sh\nmake a\n```\n\n    python b.py \\\n        c\n\nand `python d.py -e`.\n"
    )
    found = commands(text)
    assert [c.words for c in found] == [
        ["make", "a"],
        ["python", "b.py", "c"],
        ["python", "d.py", "-e"],
    ]
    assert [c.line for c in found] == [4, 7, 10]


def test_bash_takes_the_commands_apart() -> None:
    assert words("```sh\nX='p q'\npython a.py \"$X\" $X b_{c,d}.py  # comment\n```\n") == [
        ["python", "a.py", "p q", "p", "q", "b_c.py", "b_d.py"]
    ]
    assert words("```sh\nRUN='python a'\n```\ntext\n```sh\n${RUN}_b.py $BCCD/x\n```\n") == [
        ["python", "a_b.py", "datasets/shapes/x"]
    ]
    assert words("```sh\n.venv/bin/python -c 'open(1)'\n```\n") == [
        [".venv/bin/python", "-c", "open(1)"]
    ]
    (command,) = commands("```sh\nA=1 python b.py\n```\n")
    assert command.environment["A"] == "1"


@pytest.mark.parametrize("language", ["", "console", "bash"])
def test_a_block_that_nobody_would_run_is_refused(language: str) -> None:
    with pytest.raises(ValueError, match="line 4"):
        read_blocks(f"text\n\n```{language}\npython a.py\n```\n")


def test_what_bash_does_not_understand_is_refused() -> None:
    with pytest.raises(ValueError, match="bash refuses"):
        commands("```sh\npython 'a.py\n```\n")


@pytest.mark.parametrize("line", ["curl x", "python -m something", "docker run"])
def test_a_command_that_is_neither_run_nor_listed_fails(line: str) -> None:
    ((*found,),) = words(f"```sh\n{line}\n```\n")
    with pytest.raises(LookupError, match="neither run nor listed"):
        quick_form(found)


def test_the_tables_have_nothing_that_no_document_needs(all_commands: list[Command]) -> None:
    lines = [" ".join(c.words) for c in all_commands]
    for pattern, _ in NOT_RUN:
        assert any(re.match(pattern, line) for line in lines), pattern
    for name in (*QUICK, *PLACEHOLDERS):
        assert any(name in line.split() for line in lines), name
    for name in VARIABLES:
        assert any(f"${name}" in (ROOT / document).read_text() for document in DOCUMENTS)


def test_most_commands_run(all_commands: list[Command]) -> None:
    run = [c for c in all_commands if not quick_form(c.words).why_not]
    assert len(run) > 0.7 * len(all_commands) > 30
