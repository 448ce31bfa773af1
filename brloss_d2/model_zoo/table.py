"""What there is: each config with what its name says and what was published for it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache

from tabulate import tabulate

from brloss_d2.errors import InputError
from brloss_d2.model_zoo.configs import config_files, root

_LOSSES = ("alrp", "ap", "bap", "brs", "ce", "focal", "rs")
# <detector>_<backbone>[_FPN]_<loss>[_<schedule>], the backbone being R_50, R_101_DCN, swin_t...
_NAME = re.compile(
    r"(?P<detector>.+?)_(?P<backbone>(?:R|X)_\d+(?:_[0-9a-zA-Z]+)*?|[sS]win_[a-zA-Z])"
    rf"(?:_FPN)?_(?P<loss>{'|'.join(_LOSSES)})(?:_(?P<schedule>.+))?"
)


@dataclass(frozen=True)
class ConfigEntry:
    """A config.

    Attributes:
        name: for `get_config`.
        data: `coco`, `lvis_v1`, `cityscapes`, or `own data` for the small configs.
        detector, backbone, loss, schedule: what its name says; "-" for what it does not.
        box_ap, mask_ap: as published, not measured with this package; "-" where nothing was.
        source: who published it.
    """

    name: str
    data: str
    detector: str
    backbone: str
    loss: str
    schedule: str
    box_ap: str
    mask_ap: str
    source: str


def list_configs(**filters: str) -> list[ConfigEntry]:
    """Return the configs, by name; `summary` makes a table of them.

    Args:
        **filters: an attribute of `ConfigEntry` and what it has to be, in any case of letters:
            `list_configs(loss="brs", detector="mask_rcnn")`.

    Raises:
        InputError: there is no such attribute, or no config has such a value.
    """
    entries = [_entry(name) for name in config_files()]
    for key, value in filters.items():
        known = [field.name for field in fields(ConfigEntry)]
        if key not in known:
            raise InputError(f"There is no column {key!r}: expected one of {', '.join(known)}.")
        values = sorted({getattr(entry, key) for entry in entries})
        entries = [e for e in entries if getattr(e, key).lower() == value.lower()]
        if not entries:
            raise InputError(
                f"No config with {key} {value!r} among those left; there are {', '.join(values)}."
            )
    return entries


def summary(entries: Sequence[ConfigEntry] | None = None) -> str:
    """Return a table of configs, of all by default. The numbers are the published ones."""
    entries = list_configs() if entries is None else entries
    headers = [field.name.replace("_ap", " AP") for field in fields(ConfigEntry)]
    return tabulate([astuple(e) for e in entries], headers, disable_numparse=True)


def _entry(name: str) -> ConfigEntry:
    found = _NAME.fullmatch(name.rpartition("/")[2])
    parts = found.groupdict() if found else {}
    row = _published().get(name, {})
    return ConfigEntry(
        name=name,
        data=_data(name),
        **{key: parts.get(key) or "-" for key in ("detector", "backbone", "loss", "schedule")},
        box_ap=row.get("box AP", "-"),
        mask_ap=row.get("mask AP", "-"),
        source=row.get("source", "-"),
    )


def _data(name: str) -> str:
    folders = name.split("/")[:-1]
    if "quick" in folders:
        return "own data"
    datasets = {"lvis_v1", "cityscapes"} & set(folders)
    return datasets.pop() if datasets else "coco"


@cache
def _published() -> dict[str, dict[str, str]]:
    """Name -> column -> cell, from docs/model_zoo.md and the README.md of each project."""
    pages = [("", root() / "docs" / "model_zoo.md")]
    for page in sorted((root() / "projects").glob("*/README.md")):
        pages.append((f"{page.parent.name}/", page))
    found = {}
    for prefix, page in pages:
        for row in _rows(page.read_text(encoding="utf-8")):
            name = row["config"].strip("`").removesuffix(".py")
            found[prefix + name.removeprefix(prefix)] = row
    return found


def _rows(text: str) -> Iterator[dict[str, str]]:
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "config":
            columns = cells
        elif re.fullmatch(r"`[\w/.]+`", cells[0]) and len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))
