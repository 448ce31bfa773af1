"""Check the files of Cityscapes before detectron2 reads them, which stops with an assertion."""

import os

from brloss_d2.errors import InputError

_IMAGE = "leftImg8bit.png"
_TRUTH = ("gtFine_polygons.json", "gtFine_instanceIds.png", "gtFine_labelIds.png")


def check_cityscapes_files(image_dir: str, gt_dir: str) -> None:
    """Check that each image has its ground truth. Lists the folders, opens nothing.

    Args:
        image_dir: the folder of a split, `leftImg8bit/<split>`, with a folder for each city.
        gt_dir: `gtFine/<split>`.

    Raises:
        InputError: there are no images, other files among them, or ground truth is missing.
    """
    images = 0
    missing = []
    for city in sorted(os.listdir(image_dir)):
        truth = _listed(os.path.join(gt_dir, city))
        for name in sorted(_listed(os.path.join(image_dir, city))):
            if not name.endswith(_IMAGE):
                raise InputError(f"{os.path.join(image_dir, city, name)} is no *_{_IMAGE}.")
            images += 1
            wanted = (name.removesuffix(_IMAGE) + suffix for suffix in _TRUTH)
            missing += [os.path.join(gt_dir, city, file) for file in wanted if file not in truth]
    if not images:
        raise InputError(f"There are no images in {os.path.abspath(image_dir)}.")
    if missing:
        raise InputError(
            f"{len(missing)} files of the ground truth of {images} images are missing, first "
            f"{os.path.abspath(missing[0])}. They come in gtFine_trainvaltest.zip."
        )


def _listed(folder: str) -> set[str]:
    if not os.path.isdir(folder):
        return set()
    return set(os.listdir(folder))
