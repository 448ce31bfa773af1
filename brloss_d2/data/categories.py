"""Categories of a custom dataset, saved next to the weights of its training."""

import json
import os
from collections.abc import Mapping

from brloss_d2.errors import InputError

CATEGORIES_FILE = "categories.json"


def write_categories(folder: str, categories: Mapping[int, str]) -> None:
    """Write `categories.json`, so that weights can be used without their dataset.

    Args:
        folder: existing folder of the weights.
        categories: category id -> name.
    """
    content = {"categories": [{"id": id_, "name": name} for id_, name in categories.items()]}
    with open(os.path.join(folder, CATEGORIES_FILE), "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)


def read_categories(json_file: str) -> dict[int, str]:
    """Return category id -> name of `categories.json` or of any COCO annotation file.

    Raises:
        InputError: the file is missing, damaged or without categories.
    """
    try:
        with open(json_file, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise InputError(f"Cannot read categories from {json_file}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{json_file} is not valid JSON: {error}") from error
    records = content.get("categories") if isinstance(content, dict) else None
    if (
        not isinstance(records, list)
        or not records
        or not all(
            isinstance(r, dict) and type(r.get("id")) is int and isinstance(r.get("name"), str)
            for r in records
        )
    ):
        raise InputError(
            f"{json_file} has no categories: expected a COCO file with "
            '"categories": [{"id": 1, "name": "..."}, ...].'
        )
    return {record["id"]: record["name"] for record in records}
