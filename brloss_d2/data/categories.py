"""Categories of a custom dataset, saved next to the weights of its training."""

import json
import os
from collections.abc import Mapping

from brloss_d2.data.coco_file import read_category_section, read_json
from brloss_d2.errors import InputError
from brloss_d2.utils.files import write_text

CATEGORIES_FILE = "categories.json"


def in_order(categories: Mapping[int, str]) -> list[str]:
    """Return the names of categories by label: labels follow the ids."""
    return [categories[id_] for id_ in sorted(categories)]


def write_categories(folder: str, categories: Mapping[int, str]) -> None:
    """Write `categories.json`, so that weights can be used without their dataset.

    Args:
        folder: folder of the weights.
        categories: category id -> name.
    """
    content = {"categories": [{"id": id_, "name": name} for id_, name in categories.items()]}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    write_text(os.path.join(folder, CATEGORIES_FILE), text)


def read_categories(json_file: str) -> dict[int, str]:
    """Return category id -> name of `categories.json` or of any COCO annotation file.

    Raises:
        InputError: the file is missing, damaged or without categories.
    """
    content = read_json(json_file, f"Cannot read categories from {json_file}")
    records = content.get("categories") if isinstance(content, dict) else None
    if (
        not records
        or not isinstance(records, list)
        or not all(isinstance(r, dict) for r in records)
    ):
        raise InputError(
            f"{json_file} has no categories: expected a COCO file with "
            '"categories": [{"id": 1, "name": "..."}, ...].'
        )
    return read_category_section(records, json_file)[1]
