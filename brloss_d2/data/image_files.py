"""A look at every image file of a custom dataset before training, and notes about them."""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from PIL import Image
from tqdm import tqdm

from brloss_d2.data.custom import CustomDataSummary
from brloss_d2.data.images import (
    check_side_ratio,
    check_size,
    opened_image,
    orientation,
    read_image,
    upright_8_bit,
    upright_size,
)
from brloss_d2.errors import InputError
from brloss_d2.utils.files import write_text
from brloss_d2.utils.text import first_lines

_THREADS = min(8, os.cpu_count() or 1)
_CACHED = 1000  # number of files from which on what was seen of them is kept
_SAMPLE = 16  # number of files that are decoded for a note
_DARK = 63  # of 255: 14 of 16 bits


class ImageFacts(NamedTuple):
    """What is known of an image file that can be read.

    Attributes:
        bytes: size of the file.
        modified: time of its last modification, in nanoseconds.
        width: width of the upright image, in pixels.
        height: height of the upright image, in pixels.
        turned: whether an EXIF tag turns or mirrors the image without changing its size.
        deep: whether it has 16 bits per channel.
        alpha: whether it has transparency.
        frames: whether it has several frames or pages.
    """

    bytes: int
    modified: int
    width: int
    height: int
    turned: bool
    deep: bool
    alpha: bool
    frames: bool


def check_custom_images(data: CustomDataSummary, *, training: bool) -> CustomDataSummary:
    """Read all images of a custom dataset through.

    Args:
        data: contents of the dataset.
        training: whether the training images are needed, if there are any.

    Returns:
        The contents, with notes about the images.

    Raises:
        InputError: images cannot be used; the message names the first ones.
    """
    given = {"val": data.val, "train": data.train if training else None}
    splits = {name: split for name, split in given.items() if split is not None}
    facts = {
        name: look_at_images(split.image_sizes, key=f"data.{name}")
        for name, split in splits.items()
    }
    notes = {name: image_notes(seen) for name, seen in facts.items()}
    keys = content_keys({file: fact for seen in facts.values() for file, fact in seen.items()})
    for name, seen in facts.items():
        if copies := len(seen) - len({keys[file] for file in seen}):
            notes[name].append(
                f"{copies} of {len(seen)} images are copies of another, under another name"
            )
    learned = {keys[file] for file in facts.get("train", ())}
    if shared := sum(keys[file] in learned for file in facts.get("val", ())):
        notes["val"].append(
            f"{shared} of {len(facts['val'])} images are in data.train too: AP flatters the model"
        )
    changes: dict[str, Any] = {x: split.noted(notes[x]) for x, split in splits.items()}
    return replace(data, **changes)


def look_at_images(
    sizes: Mapping[str, tuple[int, int]], *, key: str = "data.train"
) -> dict[str, ImageFacts]:
    """Read all images through, fast: JPEG at an eighth of its size, PNG by its checksums.

    What was seen of large sets is kept in `~/.cache/brloss_d2` (`XDG_CACHE_HOME`), so that files
    which have not changed since are not read again. A bar shows the progress.

    Args:
        sizes: path -> width and height in the annotations, in pixels.
        key: command-line key of the annotations, for messages.

    Returns:
        Facts of each file.

    Raises:
        InputError: files are missing, damaged, not as large as the JSON says, or of a kind that
            the package does not read; the message names the first ones.
    """
    cache_file, known = _read_cache(sizes)
    facts: dict[str, ImageFacts] = {}
    errors = []
    for file, seen in _look_at_all(sizes, known, title=f"Images of {key}"):
        if isinstance(seen, ImageFacts):
            facts[file] = seen
        else:
            errors.append(seen)
    if cache_file and any(known.get(file) != seen for file, seen in facts.items()):
        with suppress(InputError):
            write_text(cache_file, json.dumps({**known, **facts}))
    if errors:
        raise InputError(
            f"{len(errors)} of the {len(sizes)} images of {key} cannot be used:"
            f"{first_lines(errors)}\nCorrect or replace them, or remove them from the annotations "
            "(train.check_images=false looks at none of them before they are needed)."
        )
    return facts


def image_notes(facts: Mapping[str, ImageFacts]) -> list[str]:
    """Return sentences about what is unusual about images that can be read.

    Args:
        facts: path -> facts of the file.
    """
    having = {
        name: [file for file, fact in facts.items() if getattr(fact, name)]
        for name in ("turned", "deep", "alpha", "frames")
    }
    for file in having["alpha"][:_SAMPLE]:
        with opened_image(file) as image:
            if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
                break
    else:
        having["alpha"] = []
    if any(read_image(file).max() > _DARK for file in having["deep"][:_SAMPLE]):
        having["deep"] = []
    texts = {
        "turned": "turned by an EXIF tag: boxes have to fit what viewers show",
        "deep": "nearly black: 16 bits, of which they use less than 14; scale them up",
        "alpha": "transparent in parts: the colors that viewers hide are seen",
        "frames": "stacks of frames or pages: the first is read",
    }
    return [
        f"{len(having[name])} of {len(facts)} images are {text}"
        for name, text in texts.items()
        if having[name]
    ]


def content_keys(facts: Mapping[str, ImageFacts]) -> dict[str, bytes]:
    """Return path -> bytes that are the same for files with the same content, and for no others.

    Args:
        facts: path -> facts of the file.
    """
    sizes = Counter(fact.bytes for fact in facts.values())
    ends = {file: _hash_ends(file) for file, fact in facts.items() if sizes[fact.bytes] > 1}
    counts = Counter(ends.values())
    # Uncompressed images with a black border may have the same ends and differ between them.
    return {
        file: hashlib.sha256(Path(file).read_bytes()).digest()
        if counts[ends.get(file, b"")] > 1
        else os.fsencode(file)
        for file in facts
    }


def _look_at_all(
    sizes: Mapping[str, tuple[int, int]], known: Mapping[str, ImageFacts], title: str
) -> Iterator[tuple[str, ImageFacts | str]]:
    """Yield each file with its facts or what is wrong with it; threads, and a bar after 2 s."""
    files = list(sizes)
    chunks = [files[i : i + 32] for i in range(0, len(files), 32)]
    pool = ThreadPoolExecutor(_THREADS)
    stream = getattr(sys.stderr, "stream", sys.stderr)  # below what makes text printable
    try:
        with tqdm(
            total=len(files), desc=title, delay=2, leave=False, file=stream, disable=None
        ) as bar:
            for seen in pool.map(lambda chunk: [_look(f, sizes[f], known) for f in chunk], chunks):
                yield from seen
                bar.update(len(seen))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest


def _look(
    file: str, expected: tuple[int, int], known: Mapping[str, ImageFacts]
) -> tuple[str, ImageFacts | str]:
    """Return the facts of a file, or what is wrong with it."""
    try:
        facts = known.get(file)
        if facts is None or facts[:2] != _stamp(file):
            with opened_image(file) as image:
                facts = _read_through(image, *_stamp(file))
        if facts[2:4] != expected:
            # The reader alone sees an EXIF tag that stands behind the pixels.
            height, width = read_image(file).shape[:2]
            check_size(file, (width, height), expected)
    except InputError as error:
        return file, str(error)
    return file, facts


def _stamp(file: str) -> tuple[int, int]:
    """Return size and time of a file, which tell whether it has changed."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return -1, -1  # opening it says what is wrong
    return status.st_size, status.st_mtime_ns


def _read_through(image: Image.Image, size: int, modified: int) -> ImageFacts:
    """Look for damage; return the facts of an image in a file of this size and time."""
    check_side_ratio(image.filename, image.size)  # type: ignore[attr-defined]
    turn = orientation(image)
    deep = ";16" in image.mode + str(getattr(image, "tile", ""))
    alpha = image.has_transparency_data
    # Photos with a second picture for depth or brightness are MPO.
    frames = getattr(image, "is_animated", False) and image.format != "MPO"
    width, height = upright_size(image)
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))  # type: ignore[arg-type]
        image.load()
    elif image.format == "PNG":
        try:
            image.verify()
        except Exception:  # the reader decides whether the damage is behind the pixels
            read_image(image.filename)  # type: ignore[attr-defined]
    else:
        width, height = upright_8_bit(image).convert("RGB").size
    turned = turn in range(2, 5) or (turn in range(5, 9) and width == height)
    return ImageFacts(size, modified, width, height, turned, deep, alpha, frames)


def _hash_ends(file: str) -> bytes:
    """Return a hash of both ends of a file, which tells most images of one size apart."""
    with open(file, "rb") as opened:
        content = opened.read(1 << 16)
        opened.seek(max(len(content), os.path.getsize(file) - (1 << 16)))
        return hashlib.sha256(content + opened.read()).digest()


def _read_cache(files: Iterable[str]) -> tuple[str, dict[str, ImageFacts]]:
    """Return the file in which facts of images are kept, "" for a small set, and its content."""
    files = list(files)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if len(files) < _CACHED or not os.path.isabs(home):
        return "", {}
    folder = hashlib.sha256(os.fsencode(os.path.commonpath(files))).hexdigest()[:16]
    path = os.path.join(home, "brloss_d2", f"images-{PIL.__version__}-{folder}.json")
    # What cannot be read is as good as none.
    with (
        suppress(OSError, ValueError, TypeError, AttributeError),
        open(path, encoding="ascii") as file,
    ):
        return path, {name: ImageFacts(*facts) for name, facts in json.load(file).items()}
    return path, {}
