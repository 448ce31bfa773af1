"""Text of users, such as names of classes and files, in messages and tables."""

import codecs
import unicodedata
from collections.abc import Collection
from itertools import accumulate, islice

_JOINERS = "\u200c\u200d"  # invisible, but part of words and of emoji


def printable(text: object, *, length: int | None = None) -> str:
    r"""Return text without line breaks and codes that a terminal would obey.

    Control characters, lone surrogates and marks that change the direction of writing are shown
    as Python writes them: `\x1b`, `\n`, `\u202e`. All other characters stay as they are.

    Args:
        text: text to print, or any other value.
        length: largest width of the result in columns of a terminal, at least 3; all of the text
            by default.

    Example:
        >>> print(printable("\x1b[31mred\nnut"))
        \x1b[31mred\nnut
    """
    shown = str(text)
    if not shown.isprintable():
        shown = "".join(
            character
            if character.isprintable()
            or character in _JOINERS
            or unicodedata.category(character) == "Zs"
            else character.encode("unicode_escape").decode("ascii")
            for character in shown
        )
    if length is None or columns(shown) <= length:
        return shown
    ends = accumulate(map(columns, shown))
    return "".join(c for c, end in zip(shown, ends, strict=True) if end <= length - 3) + "..."


def columns(text: str) -> int:
    """Return the width of text in columns of a terminal; Chinese characters take two.

    Args:
        text: printable text.

    Example:
        >>> columns("nut"), columns("螺母")
        (3, 4)
    """
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def counted(count: int, noun: str) -> str:
    """Return a number of things.

    Args:
        count: how many there are.
        noun: one of them, with a regular plural.

    Example:
        >>> counted(1, "box"), counted(1200, "box"), counted(0, "image")
        ('1 box', '1,200 boxes', '0 images')
    """
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{count:,} {noun}{ending}"


def decoded(content: bytes, errors: str = "replace") -> str:
    """Return the text of a file in UTF-8 or, with its byte order mark, UTF-16, without the mark.

    Args:
        content: content of the file.
        errors: what becomes of bytes that are no text, as in `bytes.decode`.
    """
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors)


def first_few(items: Collection[object], *, count: int = 5) -> str:
    """Return the first of many things, separated by commas, for a message.

    Args:
        items: things to name; text is printed as by `printable`, 80 characters of each.
        count: largest number of things to name.

    Example:
        >>> first_few(range(9), count=3)
        '0, 1, 2, ...'
    """
    texts = ", ".join(printable(item, length=80) for item in islice(items, count))
    return texts + (", ..." if len(items) > count else "")


def first_lines(items: Collection[object], *, count: int = 5) -> str:
    """Return the first of many things on indented lines of their own, for a message.

    Args:
        items: things to name, printed as by `printable`, 400 characters of each.
        count: largest number of things to name.

    Example:
        >>> print("Missing:" + first_lines(["a.jpg", "b.jpg"], count=1))
        Missing:
          a.jpg
          and 1 more
    """
    lines = [printable(item, length=400) for item in islice(items, count)]
    more = [f"and {len(items) - count} more"] if len(items) > count else []
    return "".join(f"\n  {line}" for line in lines + more)
