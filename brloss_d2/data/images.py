"""The one reader of images, for training, evaluation, prediction and pictures."""

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np

# Pillow turns a TIFF while it loads it and then forgets the tag, which detectron2's `read_image`
# has read before. After loading, the same function turns every format exactly once.
from detectron2.data.detection_utils import _apply_exif_orientation, convert_PIL_to_numpy
from PIL import Image, UnidentifiedImageError, _imaging

from brloss_d2.errors import InputError
from brloss_d2.utils.files import kind_of_content
from brloss_d2.utils.text import printable

# Strips with a larger ratio of their sides shrink to nothing when they are resized.
MAX_SIDE_RATIO = 100
# Formats whose header tells the size of the upright image.
HEADER_FORMATS = ("JPEG", "MPO", "PNG")
_EXIF_ORIENTATION = 0x0112

with suppress(AttributeError, OSError):  # of a Pillow without libtiff
    # It would print damage on stderr, without the name of the file. Pillow raises it too.
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def read_image(file: str | os.PathLike[str], image_format: str = "RGB") -> np.ndarray:
    """Read an image, rotated according to its EXIF orientation, with 8 bits per channel.

    Gray is repeated, transparency is dropped (hidden colors are seen), palettes and CMYK become
    RGB, and the first frame of several is read. 16 bits are scaled to 8: 65535 becomes 255,
    whatever the values that occur.

    Args:
        file: path of the image, in any format that Pillow reads.
        image_format: order of the channels, "RGB", "BGR", "L" or "YUV-BT.601" as in detectron2.

    Returns:
        Image, (H, W, C), uint8 (float for YUV).

    Raises:
        InputError: the file is missing, no regular file, damaged or no image, its pixels have an
            unknown range, or one side is more than 100 times as long as the other.
    """
    with opened_image(file) as image:
        check_side_ratio(file, image.size)
        return as_array(upright_8_bit(image), image_format)


def as_array(image: Image.Image, image_format: str) -> np.ndarray:
    """Return a loaded image with 8 bits per channel as an array, (H, W, C), uint8 (float for YUV).

    Args:
        image: image of any mode with 8 bits.
        image_format: order of the channels, see `read_image`.
    """
    if image_format != "BGR":
        return np.array(convert_PIL_to_numpy(image, image_format))
    # Pillow writes this order as fast as RGB; numpy takes as long to reverse it as the decoder.
    rgb = image.convert("RGB")
    content = bytearray(rgb.tobytes("raw", "BGR"))
    return np.frombuffer(content, np.uint8).reshape(rgb.height, rgb.width, 3)


def read_size(file: str | os.PathLike[str]) -> tuple[int, int]:
    """Return width and height in pixels of the image that `read_image` returns.

    Of the usual formats only the header is read.

    Args:
        file: path of the image.

    Raises:
        InputError: see `read_image`.
    """
    with opened_image(file) as image:
        if image.format not in HEADER_FORMATS:
            height, width = read_image(file).shape[:2]
            return width, height
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an image of `HEADER_FORMATS` turned by its EXIF tag, unread.

    Args:
        image: image that has just been opened.
    """
    width, height = image.size
    return (height, width) if orientation(image) in range(5, 9) else (width, height)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 if there is none.

    Args:
        image: image that has just been opened.
    """
    with suppress(Exception):  # garbage means no orientation, as for the reader
        # Not the method of PNG, which decodes the image.
        return Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1)
    return 1


@contextmanager
def opened_image(file: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image, whose pixels are not read yet; errors within the block name the file.

    Args:
        file: path of the image.

    Raises:
        InputError: see `read_image`.
    """
    name = printable(os.fspath(file))
    try:
        # Opening a pipe or a device could wait forever.
        if not stat.S_ISREG(os.stat(file).st_mode):
            what = "a folder" if os.path.isdir(file) else "a pipe, socket or device"
            raise InputError(f"Image file unreadable: {name} is {what}, not a file.")
        with Image.open(file) as image:
            yield image
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        link = ", a link to a file that does not exist" if os.path.islink(file) else ""
        raise InputError(f"Image file missing: {name}{link}") from error
    except Exception as error:  # Pillow raises almost anything for a damaged file
        cause: object = error.strerror if isinstance(error, OSError) and error.strerror else error
        if isinstance(error, UnidentifiedImageError) or "decoder object" in str(error):
            with open(file, "rb") as opened:
                start = opened.read(512)
            kind, cure = kind_of_content(start, "an image")
            what = {
                "": "cut off, or of a format that Pillow does not read",
                "an image": "damaged near its start, or cut off",
            }.get(kind, f"{kind}: {cure}")
            cause = f"its content is {what}" if start else "it is empty"
        raise InputError(
            f"Image file unreadable: {name} ({type(error).__name__}: {printable(cause)})."
        ) from error


def upright_8_bit(image: Image.Image) -> Image.Image:
    """Load an image, apply its EXIF orientation, and scale 16 bits to 8.

    Raises:
        InputError: pixels are floating-point numbers, or not in 0..65535.
    """
    image.load()
    upright = _apply_exif_orientation(image)
    if upright.mode != "F" and not upright.mode.startswith("I"):
        return upright
    # Pillow's own conversion would clip at 255.
    pixels = np.asarray(upright)
    if upright.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        name = printable(getattr(image, "filename", "in memory"))
        raise InputError(
            f"Image file {name}: its pixels are numbers from {pixels.min():g} to {pixels.max():g}: "
            "expected 8 or 16 unsigned bits. Convert it first."
        )
    return Image.fromarray((pixels / 257).round().astype(np.uint8))


def check_side_ratio(file: str | os.PathLike[str], size: tuple[int, int]) -> None:
    """Check that an image is no thin strip.

    Args:
        file: path of the image, for the message.
        size: width and height in pixels.

    Raises:
        InputError: one side is more than 100 times as long as the other.
    """
    if max(size) > MAX_SIDE_RATIO * min(size):
        raise InputError(
            f"Image file {printable(os.fspath(file))}: {size[0]} x {size[1]} pixels are a strip, "
            f"of which resizing leaves nothing: expected at most 1 : {MAX_SIDE_RATIO}. Cut it into "
            "tiles."
        )


def check_size(
    file: str | os.PathLike[str], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Check that an image is as large as its annotations say.

    Args:
        file: path of the image, for the message.
        size: width and height of the upright image, in pixels.
        expected: width and height in the annotations.

    Raises:
        InputError: the sizes differ.
    """
    if size == expected:
        return
    hint = "Was it resized after it was annotated?"
    if size == expected[::-1]:
        hint = (
            "They are exchanged: exchange them in the JSON, which has to describe the image as "
            "viewers show it, turned by its EXIF tag."
        )
    raise InputError(
        f"Image and annotations disagree about the size: {printable(os.fspath(file))} has "
        f"{size[0]} x {size[1]} pixels (width x height), the JSON says {expected[0]} x "
        f"{expected[1]}. {hint}"
    )
