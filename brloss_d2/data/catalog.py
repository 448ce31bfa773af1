"""Check the data sets that detectron2 registers under built-in names."""

import os
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from importlib.util import find_spec

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from brloss_d2.data.cityscapes import check_cityscapes_files
from brloss_d2.errors import InputError

# What loading and evaluating needs, by the evaluator type in the metadata.
_PACKAGES = {
    "lvis": ("lvis",),
    "cityscapes_instance": ("cityscapesscripts", "pyquaternion", "shapely"),
}


def check_registered_dataset(name: str) -> None:
    """Check that a registered data set can be loaded: its name, its files and folders.

    Raises:
        InputError: the name is not registered, its files are not there, or a package that reads
            them is not; the message says which path was looked for and how to point elsewhere.
    """
    if name not in DatasetCatalog:
        close = get_close_matches(name, DatasetCatalog.keys(), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"There is no data set named {name!r}.{hint} {_how_to_use_own_data()}")
    metadata = MetadataCatalog.get(name)
    evaluator = metadata.get("evaluator_type")
    for what, path, exists in _wanted(name, metadata):
        if not exists(path):
            raise InputError(_missing(name, what, path))
    _check_packages(name, _PACKAGES.get(evaluator, ()))
    if evaluator == "cityscapes_instance":
        check_cityscapes_files(metadata.image_dir, metadata.gt_dir)


def _wanted(name: str, metadata: Metadata) -> Iterator[tuple[str, str, Callable[[str], bool]]]:
    """Yield what a data set has to have: a name for it, its path, and how to look for it."""
    for key, what, exists in (
        ("json_file", "annotations", os.path.isfile),
        ("image_root", "image folder", os.path.isdir),
        ("image_dir", "images", os.path.isdir),  # Cityscapes
        ("gt_dir", "ground truth", os.path.isdir),
    ):
        if metadata.get(key) is not None:
            yield what, metadata.get(key), exists
    if metadata.get("evaluator_type") == "lvis":
        # The images are those of COCO; validation images come from both of its folders.
        for folder in ("train2017",) if "train" in name else ("train2017", "val2017"):
            yield "images", os.path.join(metadata.image_root, folder), os.path.isdir


def _check_packages(name: str, packages: tuple[str, ...]) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        # Without dependencies: they ask for a second OpenCV and for a typing of Python 2.
        raise InputError(
            f"Data set {name} needs {' and '.join(missing)}: "
            f"python -m pip install --no-deps {' '.join(missing)}"
        )


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
