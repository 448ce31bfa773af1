"""One sheet about training data: images as a model gets them, classes, sizes of objects."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from brloss_d2.evaluation.run import LabeledBoxes
from brloss_d2.plotting.figures import PALETTE, drawable, new_figure, save_figure, tidy
from brloss_d2.plotting.images import draw_labels, draw_panel

_COLUMNS = 4
_WIDTH = 3.0  # inches of an image
_CHART_HEIGHT = 3.2  # inches
_MOST_CLASSES = 20
_LEAST = 0.5  # pixels, of what can be told apart
_MOST_NAMED = 25  # objects in an image from which on their names are left out


@dataclass(frozen=True)
class DataSheet:
    """What the sheet shows.

    Attributes:
        images: images to draw, (H, W, 3), RGB, 0..255, and their objects.
        class_names: names of the classes, K of them.
        counts: number of objects of each class in all training data.
        sizes: side of a square of the area of each object, in pixels of the augmented images.
        anchors: the same of the anchors of the model; none if it has no anchors.
    """

    images: Sequence[tuple[np.ndarray, LabeledBoxes]]
    class_names: Sequence[str]
    counts: Mapping[str, int]
    sizes: np.ndarray
    anchors: Sequence[float]


def draw_data_sheet(sheet: DataSheet, path: str) -> None:
    """Draw images with boxes and masks, the objects of each class, and sizes next to anchors.

    Args:
        sheet: what to draw, at least one image.
        path: file to write, complete or not at all; its suffix gives the format.

    Raises:
        InputError: the picture cannot be written.
    """
    columns = min(_COLUMNS, len(sheet.images))
    rows = math.ceil(len(sheet.images) / columns)
    ratio = float(np.median([image.shape[0] / image.shape[1] for image, _ in sheet.images]))
    height = rows * float(np.clip(_WIDTH * ratio, 1, 6))
    figure = new_figure(_COLUMNS * _WIDTH, height + _CHART_HEIGHT)
    upper, lower = figure.subfigures(
        2, 1, squeeze=False, height_ratios=[height, _CHART_HEIGHT]
    ).flat
    panels = upper.subplots(rows, _COLUMNS, squeeze=False).flat
    for panel in panels:
        panel.set_axis_off()
    single = len(sheet.class_names) < 2
    drawn = []
    for panel, (image, objects) in zip(upper.axes, sheet.images, strict=False):
        colors = draw_panel(panel, image, objects, _WIDTH, single=single)
        drawn.append((panel, objects, colors))
    classes, sizes = lower.subplots(1, 2)
    _draw_classes(classes, sheet.counts)
    _draw_sizes(sizes, sheet.sizes, sheet.anchors)
    figure.draw_without_rendering()  # the place of each panel is certain from here on
    for panel, objects, colors in drawn:
        if len(objects.boxes) <= _MOST_NAMED:
            draw_labels(panel, panel.get_window_extent(), objects, sheet.class_names, colors)
    save_figure(figure, path)


def _draw_classes(axes: Axes, counts: Mapping[str, int]) -> None:
    """Draw the objects of the rarest classes, the rarest one at the top."""
    rarest = sorted(counts.items(), key=lambda item: item[1])[:_MOST_CLASSES]
    places = np.arange(len(rarest))
    bars = axes.barh(places, [count for _, count in rarest], color=PALETTE[0])
    axes.bar_label(bars, labels=[f" {count:,}" for _, count in rarest], fontsize=8)
    names = [drawable(name, length=24) for name, _ in rarest]
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    which = f"{len(rarest)} rarest of {len(counts)} classes" if len(counts) > len(rarest) else ""
    tidy(axes, xlabel="objects in the training data", title=which)


def _draw_sizes(axes: Axes, sizes: np.ndarray, anchors: Sequence[float]) -> None:
    """Draw a histogram of sizes, and lines at the anchors."""
    both = np.concatenate([sizes, anchors])
    if len(both):
        least, most = max(both.min(), _LEAST), max(both.max(), 2 * _LEAST)
        bins = np.geomspace(0.9 * least, 1.1 * most, 41)
        axes.hist(sizes.clip(least), bins=bins.tolist(), color=PALETTE[5])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(2.0 ** np.arange(math.ceil(np.log2(bins[0])), np.log2(bins[-1])))
    for number, anchor in enumerate(anchors):
        label = "anchors" if number == 0 else None
        axes.axvline(anchor, color=PALETTE[1], linewidth=1, linestyle="--", label=label)
    if anchors:
        axes.legend(framealpha=1, edgecolor="none", fontsize=8)
    tidy(axes, xlabel="side of objects in pixels of the augmented images", ylabel="objects")
