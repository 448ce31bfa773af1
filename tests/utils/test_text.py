import pytest

from brloss_d2.utils.text import first_few, printable


@pytest.mark.parametrize("text", ["bolt", "a\\b %s {x}", "信号機 🚦 ñ", "\u200d", "a\u00a0b", ""])
def test_keeps_what_is_readable(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\u2028\x85", r"\u2028\x85"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("\ud800x", r"\ud800x"),
        (None, "None"),
    ],
)
def test_escapes_what_a_terminal_would_obey(text, expected):
    assert printable(text) == expected
    printable(text).encode()


def test_cuts_and_counts():
    assert printable("x" * 9, length=5) == "xx..."
    assert printable("螺母螺母", length=8) == "螺母螺母"
    assert printable("螺母螺母", length=7) == "螺母..."
    assert first_few([1, "a\nb"]) == r"1, a\nb"
    assert first_few(range(6)) == "0, 1, 2, 3, 4, ..."
