"""Checks of the datasets that detectron2 registers under built-in names."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from brloss_d2.errors import InputError
from brloss_d2.utils.suggest import did_you_mean

# Packages that loading and evaluation need, by the evaluator type in the metadata.
_PACKAGES = {
    "lvis": ("lvis",),
    "cityscapes_instance": ("cityscapesscripts", "pyquaternion", "shapely"),
}
_IMAGE = "leftImg8bit.png"
_TRUTH = ("gtFine_polygons.json", "gtFine_instanceIds.png", "gtFine_labelIds.png")
_HOW_TO_USE_CUSTOM_DATA = (
    "For a custom dataset in COCO format give data.train=FILE.json data.train_images=FOLDER "
    "data.val=FILE.json data.val_images=FOLDER."
)


def check_registered_dataset(name: str) -> None:
    """Check that a registered dataset can be loaded: its name, files, folders and packages.

    Raises:
        InputError: the name is not registered, a file is missing, or a package that reads the
            files is not installed; the message says which path was looked for and how to point
            elsewhere.
    """
    if name not in DatasetCatalog:
        hint = did_you_mean(name, DatasetCatalog.keys())
        raise InputError(f"There is no dataset named {name!r}.{hint} {_HOW_TO_USE_CUSTOM_DATA}")
    metadata = MetadataCatalog.get(name)
    for what, path, exists in _required_paths(name, metadata):
        if not exists(path):
            root = os.environ.get("DETECTRON2_DATASETS")
            setting = f"it is {root}" if root else "it is not set, so ./datasets was taken"
            raise InputError(
                f"The {what} of dataset {name} are missing: looked for {os.path.abspath(path)}. "
                "Set the environment variable DETECTRON2_DATASETS to the folder with detectron2's "
                f"datasets ({setting}). {_HOW_TO_USE_CUSTOM_DATA}"
            )
    evaluator = metadata.get("evaluator_type")
    missing = [package for package in _PACKAGES.get(evaluator, ()) if find_spec(package) is None]
    if missing:
        # Without dependencies: they ask for a second OpenCV and for a typing of Python 2.
        raise InputError(
            f"Dataset {name} needs {' and '.join(missing)}: "
            f"python -m pip install --no-deps {' '.join(missing)}"
        )
    if evaluator == "cityscapes_instance":
        _check_cityscapes_files(metadata.image_dir, metadata.gt_dir)


def _required_paths(
    name: str, metadata: Metadata
) -> Iterator[tuple[str, str, Callable[[str], bool]]]:
    """Yield the parts of a dataset: what it is, its path, and a test of the path."""
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


def _check_cityscapes_files(image_dir: str, gt_dir: str) -> None:
    """Check that each image has its ground truth, without which detectron2 fails an assertion."""
    images = 0
    missing = []
    for city in sorted(os.listdir(image_dir)):
        folder, truth = os.path.join(image_dir, city), os.path.join(gt_dir, city)
        known = set(os.listdir(truth)) if os.path.isdir(truth) else set()
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if not name.endswith(_IMAGE):
                raise InputError(f"{os.path.join(folder, name)} is no *_{_IMAGE}.")
            images += 1
            wanted = (name.removesuffix(_IMAGE) + suffix for suffix in _TRUTH)
            missing += [os.path.join(truth, file) for file in wanted if file not in known]
    if not images:
        raise InputError(f"There are no images in {os.path.abspath(image_dir)}.")
    if missing:
        raise InputError(
            f"{len(missing)} files of the ground truth of {images} images are missing, first "
            f"{os.path.abspath(missing[0])}. They come in gtFine_trainvaltest.zip."
        )
