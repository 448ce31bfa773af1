"""Check the data sets that detectron2 registers under built-in names."""

import os
from difflib import get_close_matches

from detectron2.data import DatasetCatalog, MetadataCatalog

from brloss_d2.errors import InputError


def check_registered_dataset(name: str) -> None:
    """Check that a registered data set can be loaded: its name, its JSON and its image folder.

    Raises:
        InputError: the name is not registered, or its files are not there; the message says
            which path was looked for and how to point elsewhere.
    """
    if name not in DatasetCatalog:
        close = get_close_matches(name, DatasetCatalog.keys(), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"There is no data set named {name!r}.{hint} {_how_to_use_own_data()}")
    metadata = MetadataCatalog.get(name)
    for key, what, exists in (
        ("json_file", "annotations", os.path.isfile),
        ("image_root", "image folder", os.path.isdir),
    ):
        path = metadata.get(key)
        if path is not None and not exists(path):
            raise InputError(_missing(name, what, path))


def _missing(name: str, what: str, path: str) -> str:
    root = os.environ.get("DETECTRON2_DATASETS")
    setting = f"it is {root}" if root else "it is not set, so ./datasets was taken"
    return (
        f"The {what} of data set {name} are missing: looked for {os.path.abspath(path)}. Set the "
        f"environment variable DETECTRON2_DATASETS to the folder with detectron2's data sets "
        f"({setting}). {_how_to_use_own_data()}"
    )


def _how_to_use_own_data() -> str:
    return (
        "For own data in COCO format give data.train=FILE.json data.train_images=FOLDER "
        "data.val=FILE.json data.val_images=FOLDER."
    )
