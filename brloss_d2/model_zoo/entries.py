"""All configs at a glance: what the name of each says, and what was published for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import yaml
from tabulate import tabulate

from brloss_d2.errors import InputError
from brloss_d2.model_zoo.configs import config_files, config_folders, list_criteria

# <detector>_<backbone>[_FPN]_<loss>[_<variant>][_<schedule>], with a backbone such as R_50,
# R_101_DCN, swin_t.
_NAME = (
    r"(?P<detector>.+?)_(?P<backbone>(?:R|X)_\d+(?:_[0-9a-zA-Z]+)*?|[sS]win_[a-zA-Z])"
    r"(?:_FPN)?_(?P<loss>{losses})(?:_(?P<variant>g?iou))?(?:_(?P<schedule>.+))?"
)

# Published numbers by their keys in zoo.yaml, with their names in cards and tables.
NUMBERS = {
    "box_ap": "box AP",
    "test_dev_ap": "test-dev",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
    "mask_ap": "mask AP",
    "olrp": "oLRP",
    "mask_olrp": "mask oLRP",
    "olrp_grid": "oLRP (grid)",
}


@dataclass(frozen=True)
class ConfigEntry:
    """One config.

    Attributes:
        name: name for `get_config`.
        data: "coco", "lvis_v1", "cityscapes", or "custom" for the small configs.
        detector: detector in the name of the config, "-" if there is none.
        backbone: backbone in the name, "-" if there is none.
        loss: name of the criterion in the name, "-" if there is none.
        variant: "iou" for a RetinaNet that assigns by IoU where others have the assigner of ATSS,
            "giou" for cross-entropy with GIoU Loss, else "-".
        schedule: schedule in the name, "-" if there is none.
        box_ap: published box AP in percent, not measured with this package; "-" if there is none.
        mask_ap: published mask AP in percent; "-" if there is none.
        source: who published the numbers.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> entry = model_zoo.list_configs(backbone="R_101_DCN", loss="brs")[0]
        >>> entry.detector, entry.schedule
        ('faster_rcnn', '3x')
    """

    name: str
    data: str
    detector: str
    backbone: str
    loss: str
    variant: str
    schedule: str
    box_ap: str
    mask_ap: str
    source: str


def list_configs(**filters: str) -> list[ConfigEntry]:
    """Return the configs, sorted by name; `summary` makes a table of them.

    Args:
        **filters: attributes of `ConfigEntry` and the values they must have, in upper or lower
            case: `list_configs(loss="brs", detector="mask_rcnn")`.

    Raises:
        InputError: there is no such attribute, or no config has such a value.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> (entry,) = model_zoo.list_configs(detector="atss", loss="brs", schedule="1x")
        >>> entry.name, entry.box_ap
        ('coco/atss_R_50_FPN_brs_1x', '39.8')
    """
    # The longest first: "brs" is not read as "rs" of a detector "..._b".
    losses = "|".join(sorted(list_criteria(), key=len, reverse=True))
    pattern = re.compile(_NAME.format(losses=losses))
    entries = []
    for name in config_files():
        *folders, leaf = name.split("/")
        found = pattern.fullmatch(leaf)
        parts = found.groupdict(default="-") if found else {}
        row = published()["results"].get(name, {})
        datasets = {"lvis_v1", "cityscapes"} & set(folders)
        entry = ConfigEntry(
            name=name,
            data="custom" if "quick" in folders else datasets.pop() if datasets else "coco",
            **{key: parts.get(key, "-") for key in pattern.groupindex},
            box_ap=cell(row, "box_ap"),
            mask_ap=cell(row, "mask_ap"),
            source=row.get("source", "-"),
        )
        entries.append(entry)
    for key, value in filters.items():
        known = [field.name for field in fields(ConfigEntry)]
        if key not in known:
            raise InputError(f"There is no column {key!r}: expected one of {', '.join(known)}.")
        values = sorted({getattr(entry, key) for entry in entries})
        entries = [e for e in entries if getattr(e, key).lower() == value.lower()]
        if not entries:
            raise InputError(
                f"No config with {key} {value!r} among those left: expected one of "
                f"{', '.join(values)}."
            )
    return entries


def summary(entries: Sequence[ConfigEntry] | None = None) -> str:
    """Return a table of configs with the published numbers, at most 80 columns wide.

    The names say the rest; `describe` tells who published the numbers.

    Args:
        entries: configs in the order of the rows; None for all.

    Example:
        >>> from brloss_d2 import model_zoo
        >>> table = model_zoo.summary(model_zoo.list_configs(loss="alrp"))
        >>> table.split()[:5]
        ['name', 'box', 'AP', 'mask', 'AP']
    """
    entries = list_configs() if entries is None else entries
    rows = [(e.name, e.box_ap.split()[0], e.mask_ap.split()[0]) for e in entries]
    return tabulate(rows, headers=["name", "box AP", "mask AP"], disable_numparse=True)


@cache
def published() -> dict[str, Any]:
    """Return what the `zoo.yaml` next to the configs say; their comments explain the keys.

    Returns:
        "results", from the name of a config to its row, and "deviations", from the name of a group
        to its rows.
    """
    found: dict[str, Any] = {"results": {}, "deviations": {}}
    for folder in config_folders().values():
        if (folder / "zoo.yaml").exists():
            content = yaml.safe_load((folder / "zoo.yaml").read_text(encoding="utf-8"))
            for key in found:
                found[key].update(content.get(key, {}))
    return found


def cell(row: dict[str, Any], key: str) -> str:
    """Return a published number as text, with its source if that is not the one of the row."""
    if key not in row:
        return "-"
    digits = 2 if key == "seconds" else 1
    source = row.get(f"{key}_source")
    return f"{row[key]:.{digits}f}" + (f" ({source})" if source else "")
