"""Find image files, and read all kinds of them as RGB."""

import glob
import os
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from brloss_d2.errors import InputError

# Searched for in folders; a file given by its name may have any format that Pillow reads.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(inputs: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Return the image files that paths stand for, each once, in the order of the paths.

    Args:
        inputs: files, which need not exist (reading them fails later, one by one); folders, which
            stand for all images in them and below, sorted by name; patterns such as
            `a/**/*.png`.

    Raises:
        InputError: a folder has no image, a pattern matches no file, or there is no path.
    """
    found: list[str] = []
    for given in inputs:
        path = os.fspath(given)
        files = [path]
        if os.path.isdir(path):
            files = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(path)
                for name in names
                if name.lower().endswith(SUFFIXES)
            ]
            if not files:
                raise InputError(
                    f"There are no images in the folder {path} or below: expected files that end "
                    f"with {', '.join(SUFFIXES)}."
                )
        elif glob.has_magic(path) and not os.path.exists(path):
            files = list(filter(os.path.isfile, glob.glob(path, recursive=True)))
            if not files:
                raise InputError(f"No file matches the pattern {path}.")
        found += sorted(files)
    if not found:
        raise InputError("No images given: expected files, folders or patterns like 'a/*.jpg'.")
    return list(dict.fromkeys(found))


def read_rgb(file: str) -> np.ndarray:
    """Read an image as (H, W, 3) uint8, RGB, rotated according to its EXIF orientation.

    Gray is repeated, transparency is dropped; 16 bits are scaled to 8 (65535 becomes 255).

    Raises:
        InputError: the file is missing or no image, or its pixels have an unknown range.
    """
    if not os.path.isfile(file):
        raise InputError(f"Image file missing: {file}")
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F" or image.mode.startswith("I"):
                # Pillow's own conversion would clip 16 bits at 255.
                pixels = np.asarray(image)
                if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
                    raise InputError(
                        f"Image file {file}: its pixels are numbers from {pixels.min()} to "
                        f"{pixels.max()}: expected 8 or 16 unsigned bits. Convert it first."
                    )
                image = Image.fromarray((pixels / 257).round().astype(np.uint8))
            return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow raises almost anything for a damaged file
        raise InputError(
            f"Image file unreadable: {file} ({type(error).__name__}: {error})."
        ) from error
