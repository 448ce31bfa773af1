"""Images to predict: files, folders and patterns, arrays, images of Pillow."""

import glob
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from brloss_d2.data.images import check_side_ratio, read_image, upright_8_bit
from brloss_d2.errors import InputError
from brloss_d2.utils.text import printable

Input = str | os.PathLike[str] | np.ndarray | Image.Image

# Searched for in folders; a file given by its name may have any format that Pillow reads.
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)

_PATHS = (str, os.PathLike)
_EXPECTED = "expected paths, images of Pillow or arrays (H, W, 3) of uint8, RGB"


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


def each_input(images: Input | Iterable[Input]) -> Iterable[Any]:
    """Return what an argument consists of: one image or several.

    Raises:
        InputError: it is nothing of the kind.
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)  # a batch
    if isinstance(images, str | os.PathLike | np.ndarray | Image.Image):
        return [images]
    is_content = isinstance(images, bytes | bytearray | memoryview)
    if is_content or hasattr(images, "dtype") or not isinstance(images, Iterable):
        raise InputError(_not_an_image(images))
    return images


def list_inputs(images: Input | Iterable[Input]) -> list[str] | list[np.ndarray | Image.Image]:
    """Return the files, or the arrays and images of Pillow, that an argument stands for.

    Args:
        images: one or more of them; paths may be folders and patterns, see `find_images`.

    Raises:
        InputError: it is something else, paths are mixed with others, or there is no image.
    """
    inputs = list(each_input(images))
    paths = [given for given in inputs if isinstance(given, _PATHS)]
    if paths and len(paths) < len(inputs):
        raise InputError("Images are arrays and paths: expected one or the other.")
    for number, given in enumerate(() if paths else inputs):
        check_input(given, number)
    return inputs if inputs and not paths else find_images(paths)


def read_input(given: Input, number: int = 0) -> np.ndarray:
    """Return an image as (H, W, 3) uint8, RGB.

    Args:
        given: path, image of Pillow, or array.
        number: position of the image among those given, for the message.

    Raises:
        InputError: it cannot be read, or is no image.
    """
    if isinstance(given, _PATHS):
        return read_image(given)
    check_input(given, number)
    if isinstance(given, Image.Image):
        try:
            return np.asarray(upright_8_bit(given).convert("RGB"))
        except InputError:
            raise
        except Exception as error:  # Pillow reads pixels late, and raises almost anything
            raise InputError(f"Image {number} is damaged: {printable(error)}.") from error
    return given


def check_input(given: object, number: int = 0) -> None:
    """Check that an image that is no path has a kind and a size that can be used.

    Raises:
        InputError: it has not; the message says what to do.
    """
    if isinstance(given, Image.Image):
        width, height = given.size
    elif isinstance(given, np.ndarray) and given.ndim == 3 and given.shape[2] == 3:
        height, width = given.shape[:2]
        if given.dtype != np.uint8:
            raise InputError(_not_an_image(given, number))
    else:
        raise InputError(_not_an_image(given, number))
    if not width or not height:
        raise InputError(f"Image {number} has no pixels: {width} x {height}.")
    if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise InputError(
            f"Image {number} has {width} x {height} pixels, more than the "
            f"{2 * Image.MAX_IMAGE_PIXELS} that Pillow reads: cut it into tiles."
        )
    check_side_ratio(f"number {number}", (width, height))


def _not_an_image(given: Any, number: int = 0) -> str:
    """Return the message for something that is no image."""
    shape, dtype = (getattr(given, name, None) for name in ("shape", "dtype"))
    if shape is None or dtype is None:
        hint = ""
        if isinstance(given, bytes | bytearray | memoryview):
            hint = ". Open the content of a file with PIL.Image.open(io.BytesIO(...))"
        return f"Image {number} is of the type {type(given).__name__}: {_EXPECTED}{hint}."
    hint = ""
    if type(given).__module__ == "torch":
        hint = ". Convert tensors, for (3, H, W) by tensor.permute(1, 2, 0).numpy()"
    elif len(shape) == 3 and shape[0] == 3 != shape[2]:
        hint = ". Put the channels last by array.transpose(1, 2, 0)"
    elif len(shape) == 2:
        hint = ". Repeat gray by np.stack([array] * 3, axis=-1)"
    elif getattr(dtype, "kind", "") == "f":
        hint = ". Scale 0..1 by (array * 255).astype(np.uint8)"
    return (
        f"Image {number} is an array {tuple(shape)} of {printable(dtype, length=40)}: "
        f"expected (H, W, 3) of uint8, RGB{hint}."
    )
