"""The files below a folder of images and labels, and which of them belong together."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from brloss_d2.data.images import read_size
from brloss_d2.errors import InputError
from brloss_d2.utils.text import decoded, first_few, first_lines, printable

_IMAGES = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
# Folders that say what their files are, and not which image they are about.
_KINDS = {
    *("images", "image", "img", "imgs", "jpegimages", "pngimages", "data"),
    *("labels", "label", "annotations", "annotation", "ann", "anns", "xml", "xmls", "json"),
    *("masks", "mask", "obj_train_data"),
}
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_THREADS = min(8, os.cpu_count() or 1)

Place = tuple[str, ...]


def place(path: str) -> Place:
    """Return what an image and its labels have in common: folders and name without their kinds.

    Args:
        path: path relative to the folder of the data.

    Example:
        >>> place("images/train/A 1.JPG") == place("labels/train/a 1.txt") == ("train", "a 1")
        True
    """
    *folders, name = unicodedata.normalize("NFC", path).casefold().split("/")
    return (*(part for part in folders if part not in _KINDS), os.path.splitext(name)[0])


def split_of(path: str) -> str:
    """Return the split that the folders of a path name: "train", "val", "test", or "" for none.

    Args:
        path: path relative to the folder of the data.

    Example:
        >>> split_of("valid/images/a.jpg"), split_of("train2017/a.jpg"), split_of("train.jpg")
        ('val', 'train', '')
    """
    words = re.findall("[a-z]+", os.path.dirname(path).casefold())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


@dataclass(frozen=True)
class Tree:
    """All files below a folder, hidden ones apart.

    Attributes:
        folder: absolute path of the folder of the labels.
        image_root: absolute path of the folder of the images, often the same.
        files: paths below `folder`, relative to it, with slashes, sorted.
        images: paths of images below `image_root`, relative to it.
    """

    folder: str
    image_root: str
    files: Sequence[str]
    images: Sequence[str]

    @classmethod
    def below(cls, folder: str, image_root: str | None = None) -> "Tree":
        """List the files of a folder; the images are in it too unless their folder is given."""
        files = sorted(_walk(folder))
        others = files if image_root is None else sorted(_walk(image_root))
        images = [file for file in others if is_image(file)]
        return cls(folder, image_root or folder, files, images)

    def ending(self, suffix: str) -> list[str]:
        """Return the files with an ending such as ".xml", in any case."""
        return [file for file in self.files if file.casefold().endswith(suffix)]

    def path(self, file: str) -> str:
        """Return the absolute path of a file of labels."""
        return os.path.join(self.folder, file)

    def read_bytes(self, file: str) -> bytes:
        """Return the content of a file of labels."""
        with open(self.path(file), "rb") as opened:
            return opened.read()

    def lines(self, file: str) -> list[str]:
        """Return the lines of a file of labels, in UTF-8 or, with its mark, UTF-16."""
        return decoded(self.read_bytes(file)).splitlines()

    def contains(self, file: str, *words: str) -> bool:
        """Return whether a file of labels, which may be too large to parse, has all words in it."""
        return has_all(self.read_bytes(file), *words)

    def image_of(self, labels: str, named: str = "") -> str | None:
        """Return the image that a file of labels is about; None if there is none.

        It has the same name, in the same folder or in one that differs in its kind only
        (`labels` and `images`), or else is the only image of that name, or else the only one that
        the file names: files that were copied and renamed still name the image of before.

        Args:
            labels: file of labels.
            named: name of the image in that file; folders are those of who wrote it.

        Raises:
            InputError: it may be several images.
        """
        named = named.replace("\\", "/").rpartition("/")[2]
        several: list[str] = []
        for name in dict.fromkeys((os.path.basename(labels), named)):
            own = place(os.path.join(os.path.dirname(labels), name))
            found = (name and self._at.get(own)) or self._named.get(own[-1], [])
            exact = [file for file in found if named and os.path.basename(file) == named]
            found = exact if len(exact) == 1 else found
            if len(found) == 1:
                return found[0]
            several = several or found
        if several:
            raise InputError(f"{labels} may be about {first_few(several)}: rename all but one.")
        return None

    def sizes(self, images: Sequence[str]) -> list[tuple[int, int]]:
        """Return width and height of upright images, in pixels; only their headers are read.

        Raises:
            InputError: some cannot be read; the message names the first ones.
        """

        def size_or_error(image: str) -> tuple[int, int] | InputError:
            try:
                return read_size(os.path.join(self.image_root, image))
            except InputError as error:
                return error

        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(size_or_error, images))
        errors = [error for error in found if isinstance(error, InputError)]
        if errors:
            raise InputError(
                f"{len(errors)} of {len(images)} images cannot be read:{first_lines(errors)}"
            )
        return [size for size in found if not isinstance(size, InputError)]

    @cached_property
    def image_folders(self) -> dict[str, list[str]]:
        """Each folder -> the images at any depth below it."""
        found = defaultdict(list)
        for image in self.images:
            parent = os.path.dirname(image)
            while parent:
                found[parent].append(image)
                parent = os.path.dirname(parent)
        return found

    @cached_property
    def known(self) -> frozenset[str]:
        """All files and images, relative to their folder."""
        return frozenset((*self.files, *self.images))

    @cached_property
    def _at(self) -> dict[Place, list[str]]:
        found = defaultdict(list)
        for image in self.images:
            found[place(image)].append(image)
        return found

    @cached_property
    def _named(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for image in self.images:
            found[place(image)[-1]].append(image)
        return found


def has_all(content: bytes, *words: str) -> bool:
    """Return whether text of labels, in UTF-8 or UTF-16, has all words in it."""
    plain = content.replace(b"\0", b"")  # of UTF-16
    return all(word.encode() in plain for word in words)


def is_image(file: str) -> bool:
    """Return whether a file has the ending of an image."""
    return os.path.splitext(file)[1].casefold() in _IMAGES


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder; a link to a folder is followed, in circles once."""

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{printable(error.filename)} cannot be read: {error.strerror}."
        ) from error

    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        seen.add(os.path.realpath(parent))
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__MACOSX"))
            and os.path.realpath(os.path.join(parent, name)) not in seen
        ]
        relative = os.path.relpath(parent, folder).replace(os.sep, "/")
        for name in files:
            if not name.startswith("."):
                yield name if relative == "." else f"{relative}/{name}"
