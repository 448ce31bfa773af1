"""What all pictures share: colors, axes, and files that are written completely or not at all."""

import os
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from brloss_d2.errors import InputError
from brloss_d2.utils.files import replacing
from brloss_d2.utils.text import printable

# Okabe and Ito's palette for the color-blind, without the yellow, which is too pale for lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")


def new_figure(width: float, height: float, *, dpi: int = 110) -> Figure:
    """Return an empty figure of a size in inches, with `dpi` pixels to the inch."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def style_of(number: int) -> dict[str, Any]:
    """Return color and line style of line `number`; the first 28 are distinct."""
    lines, colors = len(LINE_STYLES), len(PALETTE)
    return {
        "color": PALETTE[number % colors],
        "linestyle": LINE_STYLES[number // colors % lines],
    }


def tidy(axes: Axes, **labels: str) -> None:
    """Give axes their labels and a light grid, and remove the box.

    Args:
        axes: axes to change.
        **labels: properties of the axes such as `xlabel`, `ylabel` and `title`.
    """
    axes.set(**labels)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def drawable(text: str, *, length: int | None = None) -> str:
    """Return the text of a user with escapes for characters that no installed font has.

    Args:
        text: name of a class or run.
        length: largest number of characters to return, at least 3; all of them by default.
    """
    text = printable(text, length=length)
    return "".join(c if c.isascii() or _font_of(c) else ascii(c)[1:-1] for c in text)


def plain(text: str, *, length: int | None = None) -> str:
    """Return `drawable` text whose dollar signs matplotlib does not read as mathematics."""
    return drawable(text, length=length).replace("$", r"\$")


@cache
def _font_of(character: str) -> str:
    """Return the first family of fonts that has a character, the default one if it can; or ""."""
    families = {entry.name: entry.fname for entry in fontManager.ttflist}
    default = FontProperties().get_name()
    for name, file in {default: findfont(FontProperties()), **families}.items():
        # The font of last resort has a box for everything.
        if "Last Resort" not in name and ord(character) in get_font(file).get_charmap():
            return name
    return ""


def save_figure(figure: Figure, path: str) -> None:
    """Write a picture and create missing folders.

    Args:
        figure: picture to write.
        path: file to write; its suffix gives the format.

    Raises:
        InputError: the format is unknown, or the file cannot be written.
    """
    suffix = os.path.splitext(path)[1][1:]
    formats = figure.canvas.get_supported_filetypes()
    if suffix not in formats:
        raise InputError(
            f"Cannot write {path}: expected a name that ends in .png or another of "
            f"{', '.join(formats)}."
        )
    for text in figure.findobj(Text):
        families = [_font_of(c) for c in text.get_text() if not c.isascii()]
        if any(families):
            text.set_fontfamily(
                [FontProperties().get_name(), *dict.fromkeys(filter(None, families))]
            )
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error
