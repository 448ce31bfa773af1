"""Standard streams of the programs: escapes, encodings, closed streams."""

import io
import sys
import warnings

import pytest

from brloss_d2.utils.terminal import clean_output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\n\ttab\x07", "\\x1b[31mred\n        tab\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\rloading 30%", "\rloading 30%"),
        ("name\roverwritten", "name\\roverwritten"),
        ("信號機 🚦 naïve", "信號機 🚦 naïve"),
        ("\udce9t\udce9.jpg", "\\udce9t\\udce9.jpg"),
    ],
)
def test_codes_are_shown(capsys: pytest.CaptureFixture, text: str, shown: str) -> None:
    with clean_output():
        print(text)
        print(text, file=sys.stderr)
    assert capsys.readouterr() == (f"{shown}\n", f"{shown}\n")


def test_a_terminal_without_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with clean_output():
        print("信號機")
    assert sys.stdout is stream
    stream.flush()
    assert stream.buffer.getvalue() == rb"\u4fe1\u865f\u6a5f" + b"\n"


def test_a_closed_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with clean_output():
        print("unread")
        assert not sys.stdout.isatty()
    assert sys.stdout is None


def test_warnings_of_others_are_hidden(recwarn: pytest.WarningsRecorder) -> None:
    with clean_output():
        warnings.warn_explicit("old", UserWarning, "functional.py", 1, "torch.functional")
        warnings.warn_explicit("own", UserWarning, "my_loss.py", 1, "my_loss")
    assert [str(warning.message) for warning in recwarn] == ["own"]
