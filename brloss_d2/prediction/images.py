"""Find image files."""

import glob
import os
from collections.abc import Iterable

from brloss_d2.errors import InputError
from brloss_d2.utils.text import printable

# Searched for in folders; a file given by its name may have any format that Pillow reads.
SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)


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
                    f"There are no images in the folder {printable(path)} or below: expected files "
                    f"that end with {', '.join(SUFFIXES)}."
                )
        elif glob.has_magic(path) and not os.path.exists(path):
            files = list(filter(os.path.isfile, glob.glob(path, recursive=True)))
            if not files:
                raise InputError(f"No file matches the pattern {printable(path)}.")
        found += sorted(files)
    if not found:
        raise InputError("No images given: expected files, folders or patterns like 'a/*.jpg'.")
    return list(dict.fromkeys(found))
