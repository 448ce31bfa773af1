"""Reading of single values of COCO files: each function returns None for a value that is wrong."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from brloss_d2.errors import InputError
from brloss_d2.utils.text import first_few, printable

Record = dict[str, Any]
# Of each key: what is wrong with records whose value the function returns None for.
Rule = tuple[str, str, Callable[[Any], Any]]

_LENGTH = 60  # largest number of characters of a bad value to show


def read_records(
    name: str, records: Sequence[Record], rules: Sequence[Rule], where: str
) -> list[Record]:
    """Read the values of all records of a section.

    Args:
        name: name of the section.
        records: content of the section.
        rules: what to read, in the order of the checks.
        where: name of the file in messages.

    Returns:
        A dict per record, with the keys of the rules.

    Raises:
        InputError: a value is wrong, or an id is that of another record.
    """
    found: list[Record] = [{} for _ in records]
    for key, wrong, read in rules:
        bad = []
        for number, (record, values) in enumerate(zip(records, found, strict=True), 1):
            values[key] = read(record.get(key))
            if values[key] is None:
                value = printable(repr(record.get(key)), length=_LENGTH)
                shown = f"{key} {value}" if key in record else f"no {key}"
                bad.append(name_of(record, number) + f" ({shown})" * (key != "id"))
        if bad:
            raise InputError(
                f"{where}: {len(bad)} of {len(records)} {name} {wrong}: {first_few(bad)}."
            )
        if key == "id":
            counts = Counter(values["id"] for values in found)
            repeated = [id_ for id_, count in counts.items() if count > 1]
            if repeated:
                raise InputError(
                    f"{where}: {len(repeated)} of the ids of {name} occur more than once: "
                    f"{first_few(repeated)}. Each record needs its own."
                )
    return found


def name_of(record: Record, number: int) -> str:
    """Return what messages call a record.

    Args:
        record: record of a file.
        number: place in its section, from 1.
    """
    return f"id {record['id']}" if "id" in record else f"number {number} in the list"


def is_number(value: object) -> bool:
    """Return whether a value is a finite number that a float can hold exactly."""
    # The comparison is False for NaN; bool is another type than int.
    return type(value) in (int, float) and -(2**53) < value < 2**53  # type: ignore[operator]


def whole_number(value: object) -> int | None:
    """Read an integer, also one that is written as `3.0` or as text."""
    if isinstance(value, str) and len(value) < 30 and value.removeprefix("-").isdecimal():
        number = int(value)
        return number if str(number) == value else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def identity(value: object) -> int | str | None:
    """Read an id: an integer, however it is written, or any other text."""
    number = whole_number(value)
    return number if number is not None or not isinstance(value, str) else value or None


def side(value: object) -> int | None:
    """Read a side of an image in pixels."""
    number = whole_number(value)
    return number if number is not None and 0 < number < 2**31 else None


def file_name(value: object) -> str | None:
    """Read the name of a file, which is not empty."""
    return value or None if isinstance(value, str) else None


def class_name(value: object) -> str | None:
    """Read the name of a category, without the codes that a terminal would obey."""
    # Systems differ in the form of an accent: the letters are the same.
    return printable(unicodedata.normalize("NFC", value)) if isinstance(value, str) else None


def box(value: Any) -> list[float] | None:
    """Read a box, four numbers."""
    is_box = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    return value if is_box else None


def upright_box(value: Any) -> list[float] | None:
    """Read a box whose width and height are not negative."""
    return value if min(value[2:]) >= 0 else None


def not_text(value: Any) -> Any:
    """Return any value but text and lists that contain text; 0 stands for no value."""
    texts = any(isinstance(v, str) for v in (value if isinstance(value, list) else [value]))
    return None if texts else value or 0


def flag(value: object) -> int | None:
    """Read 0 or 1; null is 0."""
    return int(bool(value)) if value is None or value in (0, 1) else None


def area(value: Any) -> float | None:
    """Read an area in pixels; null is 0."""
    if value is None:
        return 0
    return value if is_number(value) and value >= 0 else None


def no_mark(value: object) -> int | None:
    """Read a mark that must not be there."""
    return None if value else 0
