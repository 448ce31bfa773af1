"""What all pictures share: colors, and writing a file completely or not at all."""

import os

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brloss_d2.errors import InputError

# Okabe and Ito's palette, told apart by the color-blind; without the yellow, too pale for lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")


def style_of(number: int) -> dict[str, str]:
    """Return color and line style of the i-th of many lines: 28 look different."""
    lines, colors = len(LINE_STYLES), len(PALETTE)
    return {
        "color": PALETTE[number % colors],
        "linestyle": LINE_STYLES[number // colors % lines],
    }


def tidy(axes: Axes, **labels: str) -> None:
    """Give axes their labels, a light grid, and no box."""
    axes.set(**labels)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str) -> None:
    """Write a picture, whose format is the suffix of `path`; folders are made.

    Raises:
        InputError: the format is unknown, or the file cannot be written.
    """
    root, suffix = os.path.splitext(path)
    formats = figure.canvas.get_supported_filetypes()
    if suffix[1:] not in formats:
        raise InputError(
            f"Cannot write {path}: expected a name that ends in .png or another of "
            f"{', '.join(formats)}."
        )
    incomplete = f"{root}.incomplete{suffix}"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        figure.savefig(incomplete)
        os.replace(incomplete, path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error
    finally:
        if os.path.exists(incomplete):
            os.remove(incomplete)
