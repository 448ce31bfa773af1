"""Files that the names in a JSON mean."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from urllib.parse import unquote

from brloss_d2.errors import InputError
from brloss_d2.utils.files import what_instead
from brloss_d2.utils.text import first_lines, printable

_SAMPLE = 5  # number of missing files that another folder has to have


def locate_images(names: Sequence[str], folder: str) -> list[str | None]:
    r"""Return the paths of image files, None for those that are missing.

    A name that does not exist as it is written is searched for as other systems write it: with
    backslashes, in another case (`.JPG`) or in another Unicode form. It has to mean one file.

    Args:
        names: names of files, relative to `folder` or absolute.
        folder: folder of the images.
    """
    # One listing per folder instead of one system call per image: on a network file system that
    # is seconds instead of minutes for COCO. Only files that are not listed are asked for.
    listed = cache(_list)

    @cache
    def alike(parent: str) -> dict[str, list[str]]:
        by_form: dict[str, list[str]] = {}
        for name in listed(parent):
            by_form.setdefault(_form(name), []).append(name)
        return by_form

    def exactly(name: str) -> str | None:
        path = os.path.join(folder, name)
        parent, base = os.path.split(path)
        return path if base in listed(parent) or os.path.isfile(path) else None

    def similarly(name: str) -> str | None:
        name = os.path.normpath(name.replace("\\", "/"))
        if os.path.isabs(name) or exactly(name):
            return exactly(name)
        path = folder
        for part in name.split("/"):
            found = [part] if part in listed(path) else alike(path).get(_form(part), [])
            if len(found) != 1:
                return None
            path = os.path.join(path, found[0])
        return path

    paths = {name: exactly(name) for name in names}
    others = {name: similarly(name) for name, path in paths.items() if path is None}
    # A file that has another name of the JSON is not the missing one.
    taken = Counter(path for path in (*paths.values(), *others.values()) if path)
    paths.update({name: path for name, path in others.items() if path and taken[path] == 1})
    return [paths[name] for name in names]


def locate_all_images(names: Sequence[str], folder: str, *, key: str) -> list[str]:
    """Return the paths of image files as `locate_images` finds them.

    Args:
        names: names of files, relative to `folder` or absolute.
        folder: folder of the images.
        key: command-line key of the annotations, for messages, which name `<key>_images` too.

    Raises:
        InputError: a file is missing; the message names the first ones, and the cause if it can be
            found.
    """
    if not os.path.isdir(folder):
        what = what_instead(folder)
        raise InputError(f"{key}_images={printable(folder)}: this folder {what}.")
    paths = locate_images(names, folder)
    missing = list(
        dict.fromkeys(name for name, path in zip(names, paths, strict=True) if path is None)
    )
    if missing:
        total = len(set(names))
        reason = _explain(missing, folder, key, total=total)
        raise InputError(
            f"{len(missing)} of the {total} images of {key} are missing in "
            f"{printable(folder)}:{first_lines(missing)}\n{reason}"
        )
    return [path for path in paths if path is not None]


def _list(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (OSError, ValueError):
        return frozenset()


def _form(name: str) -> str:
    """Return a form of a name that is the same in all cases and Unicode forms."""
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return os.path.splitext(_form(unquote(name)).strip())[0]


def _explain(missing: Sequence[str], folder: str, key: str, *, total: int) -> str:
    """Return why some of `total` files are missing, as far as the folders around tell."""
    name = missing[0].replace("\\", "/")
    usual = (
        f"Set {key}_images=FOLDER to the folder that the file names in the JSON are relative to."
    )
    if 2 * len(missing) < total:
        usual = "Copy them there, or remove them from the annotations."
    if "://" in name:
        return "They are addresses: download the images, and write their file names in the JSON."
    entries = sorted(_list(folder))
    if not entries:
        return f"This folder has no files, or they cannot be listed. {usual}"
    base = os.path.basename(name)
    parent = os.path.dirname(folder)
    siblings = [os.path.join(parent, entry) for entry in sorted(_list(parent))[:1000]]
    below = [os.path.join(folder, entry) for entry in entries[:1000]]
    for other in (parent, os.path.dirname(parent), *below, *siblings):
        if os.path.isabs(name) or not all(locate_images(missing[:_SAMPLE], other)):
            continue
        if len(missing) == total:
            return f"They are in another folder: set {key}_images={printable(other)}"
        if other in below:
            return (
                f"They are in {printable(other)}, the others are not: move them, or correct "
                "file_name in the JSON."
            )
    if base != name and base in entries:
        where = "another machine" if name.startswith("/") or name[1:2] == ":" else "other folders"
        return (
            f"The names are paths of {where}; the files are in this folder: leave out what stands "
            f"before {printable(base)} in file_name."
        )
    # Label Studio puts eight digits before the names of files.
    stems = {_stem(base), _stem(re.sub(r"^[0-9a-f]{8}-", "", base))}
    similar = [entry for entry in entries if _stem(entry) in stems]
    if similar:
        return f"There is {printable(similar[0])} instead: correct file_name in the JSON."
    return usual
