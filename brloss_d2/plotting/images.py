"""Images with boxes, masks, class names and scores: single ones, and predictions next to truth.

detectron2's `Visualizer` and torchvision draw without a legend, without rims around the boxes, with
one text size and with labels on top of small objects, so that crowded images are hard to read.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import BboxBase

from brloss_d2.data import read_image
from brloss_d2.evaluation.run import ImagePair, LabeledBoxes
from brloss_d2.plotting.figures import drawable, new_figure, save_figure

_Color = tuple[float, float, float]

_PAIRS_PER_ROW = 2
_PANEL_WIDTH = 3.3  # inches
_PANEL_HEIGHT = (0.5, 6.6)  # range in inches
_GAP = 0.05  # space between two pairs, fraction of the width of a panel
_SIDE = 8.0  # inches of the longer side: letters have the same share of every picture
_SHORT_SIDE = 0.5  # inches of the shorter side, at least
_DPI = (100, 250)  # range for a single image
_MOST_PIXELS = 2000  # longer side of what is drawn
_CROWDED = 10  # number of boxes from which class names give way to the legend
_VERY_CROWDED = 40  # number of boxes from which scores do so too
_MASK_ALPHA = 0.45
_PADDING = 0.8  # points around a label
_COVERED = 0.1  # largest share of an object that a label may cover
PALETTE: list[_Color] = [colormaps["tab10"](i)[:3] for i in (1, 0, 2, 3, 4, 6, 8, 9, 5, 7)]
# Shares of white (> 0) or black (< 0) that tell the objects of a class apart.
_SHADES = (0.0, 0.4, -0.35, 0.65, -0.6)
_DASHES = (0, (2.5, 1.2))
_CROSS: dict[str, Any] = {
    "marker": "X",
    "color": "red",
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
}


def draw_comparison(
    pairs: Sequence[ImagePair], class_names: Sequence[str], path: str, *, title: str = ""
) -> None:
    """Draw ground truth and predictions side by side, two images per row.

    Each class has a color, and its objects have shades of it; the objects of a single class have
    colors of their own. Missed objects and false detections are marked, if the pairs tell them.

    Args:
        pairs: ground truth and predictions, at least one image.
        class_names: names of the classes, K of them.
        path: file to write, complete or not at all; its suffix gives the format.
        title: line above the picture.

    Raises:
        InputError: an image cannot be read, or the picture cannot be written.
    """
    images = [read_image(pair.file_name) for pair in pairs]
    columns = min(_PAIRS_PER_ROW, len(pairs))
    height = float(np.median([image.shape[0] / image.shape[1] for image in images]))
    height = float(np.clip(_PANEL_WIDTH * height, *_PANEL_HEIGHT))
    rows, ratios = math.ceil(len(pairs) / columns), [1, 1, _GAP] * columns
    figure = new_figure(_PANEL_WIDTH * sum(ratios), rows * (height + 0.2) + 0.7)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    panels = figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios)
    for panel in panels.flat:
        panel.set_axis_off()
    panels = panels.reshape(rows, columns, 3)[..., :2]
    sides = [objects for pair in pairs for objects in (pair.ground_truth, pair.predictions)]
    labels = sorted({int(label) for objects in sides for label in objects.labels})
    drawn = []
    for number, (pair, image) in enumerate(zip(pairs, images, strict=True)):
        for panel, objects, what, wrong, mistake in zip(
            panels[divmod(number, columns)],
            (pair.ground_truth, pair.predictions),
            ("ground truth", "predictions"),
            pair.errors,
            ("missed", "false"),
            strict=True,
        ):
            colors = draw_panel(panel, image, objects, _PANEL_WIDTH, single=len(labels) < 2)
            drawn.append((panel, objects, colors))
            panel.set_title(what + (f", {wrong} {mistake}" if wrong else ""), fontsize=9, pad=3)
    _draw_legend(figure, sides, labels, [class_names[label] for label in labels])
    figure.suptitle(title, fontsize=11)
    figure.draw_without_rendering()  # the place of each panel is certain from here on
    for panel, objects, colors in drawn:
        if len(objects.boxes) <= _VERY_CROWDED:
            written = class_names if len(objects.boxes) <= _CROWDED else ()
            draw_labels(panel, panel.get_window_extent(), objects, written, colors)
    save_figure(figure, path)


def draw_detections(
    image: np.ndarray,
    objects: LabeledBoxes,
    class_names: Sequence[str] | Mapping[int, str],
    path: str,
) -> None:
    """Draw one image with boxes, masks, class names and scores, the best object on top.

    Labels stay within the picture and cover no small object; one that finds no place is left out.

    Args:
        image: image, (H, W, 3), RGB, 0..255.
        objects: objects to draw.
        class_names: names of the classes.
        path: file to write; its suffix gives the format. Its longer side has as many pixels as
            that of the image, but at least 800 and at most 2000.

    Raises:
        InputError: the picture cannot be written.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    size = (max(_SIDE * side / longer, _SHORT_SIDE) for side in (width, height))
    figure = Figure(figsize=tuple(size), dpi=np.clip(longer / _SIDE, *_DPI))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_axis_off()
    if objects.scores is not None:
        order = np.argsort(objects.scores, kind="stable")
        masks = None if objects.masks is None else [objects.masks[i] for i in order]
        objects = LabeledBoxes(
            objects.boxes[order], objects.labels[order], objects.scores[order], masks
        )
    colors = draw_panel(panel, image, objects, _SIDE, single=len(set(objects.labels)) < 2)
    panel.apply_aspect()
    draw_labels(panel, figure.bbox, objects, class_names, colors)
    save_figure(figure, path)


def _draw_legend(
    figure: Figure, sides: Sequence[LabeledBoxes], labels: Sequence[int], class_names: Sequence[str]
) -> None:
    """Name the colors of the classes and the marks of errors below the panels."""
    single = len(labels) < 2
    handles: list[Any] = [
        tuple(Patch(color=_color(label, i, single=single)) for i in range(3)) for label in labels
    ]
    names = [drawable(name, length=40) for name in class_names]
    if any(objects.wrong is not None and objects.wrong.any() for objects in sides):
        handles.append(Line2D([], [], linestyle=_DASHES, linewidth=1.8, **_CROSS))
        names.append("missed or false (IoU 0.5)")
    if not handles:
        return
    characters = 16 * figure.get_figwidth()  # in a line of the legend, with its handles
    columns = max(1, min(len(names), int(characters / (8 + max(map(len, names))))))
    legend = figure.legend(
        handles,
        names,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.set_figheight(figure.get_figheight() + 0.2 * (math.ceil(len(names) / columns) - 1))


def draw_panel(
    panel: Axes, image: np.ndarray, objects: LabeledBoxes, side: float, *, single: bool
) -> list[_Color]:
    """Draw an image and the outlines of its objects, the last one on top; return their colors.

    Args:
        panel: axes to draw on.
        image: image, (H, W, 3), RGB, 0..255.
        objects: objects of the image.
        side: length of the longer side of the image in inches.
        single: whether the picture has objects of one class only.
    """
    height, width = image.shape[:2]
    # A pixel covers [i, i + 1], as in the boxes. Large images are drawn smaller.
    extent, step = (0, width, height, 0), -(-max(height, width) // _MOST_PIXELS)
    panel.imshow(image[::step, ::step], extent=extent, interpolation="bilinear")
    seen: Counter[int] = Counter()
    colors = []
    for label in objects.labels.tolist():
        colors.append(_color(label, seen[label], single=single))
        seen[label] += 1
    if objects.masks is not None and len(objects.masks):
        overlay = np.zeros((*image[::step, ::step].shape[:2], 4))
        for shape, color in zip(objects.masks, colors, strict=True):
            mask = mask_util.decode(shape) if isinstance(shape, Mapping) else shape
            mask = mask[::step, ::step].astype(bool)
            overlay[mask] = (*color, _MASK_ALPHA)
            # An opaque rim: pixels of the mask with a neighbor outside it.
            inner = np.pad(mask, 1)
            inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
            overlay[mask & ~inner, 3] = 1.0
        panel.imshow(overlay, extent=extent)
    wrong = np.zeros(len(colors), bool) if objects.wrong is None else objects.wrong
    for (x0, y0, x1, y1), color, is_wrong in zip(objects.boxes, colors, wrong, strict=True):
        points = 72 * side / max(height, width) * min(x1 - x0, y1 - y0)
        # Thin lines around small objects; a dark rim keeps a color visible on the same color.
        thickness = float(np.clip(0.08 * points, 0.6, 1.8))
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, snap=False)
        outline.set(linewidth=thickness, linestyle=_DASHES if is_wrong else "-")
        rim = withStroke(linewidth=1.6 * thickness, foreground="black", alpha=0.6)
        outline.set_path_effects([rim])
        panel.add_patch(outline)
        if is_wrong:
            size = float(np.clip(0.4 * points, 2.5, 6))
            panel.plot([x1], [y0], markersize=size, zorder=6, **_CROSS)
    panel.set(xlim=(0, width), ylim=(height, 0))
    return colors


def draw_labels(
    panel: Axes,
    frame: BboxBase,
    objects: LabeledBoxes,
    class_names: Sequence[str] | Mapping[int, str],
    colors: Sequence[_Color],
) -> None:
    """Write names and scores where they cover no small object and no other label.

    Args:
        panel: axes with the image.
        frame: place that they stay in, in pixels of the figure.
        objects: objects of the image, the last one the most important.
        class_names: names of the classes; none for scores alone.
        colors: colors of the objects.
    """
    corners = panel.transData.transform(objects.boxes.reshape(-1, 2)).reshape(-1, 2, 2)
    boxes = np.stack([corners.min(1), corners.max(1)], 1)  # y points up
    taken, margin = np.zeros((0, 2, 2)), _PADDING * panel.figure.dpi / 72
    for number in reversed(range(len(boxes))):
        name = drawable(class_names[objects.labels[number]], length=40) if class_names else ""
        score = "" if objects.scores is None else f"{objects.scores[number]:.2f}"
        if not f"{name}{score}":
            continue
        color = colors[number]
        text = panel.text(
            0,
            0,
            f"{name} {score}".strip(),
            fontsize=5.5 if len(boxes) > _CROWDED else 7.5,
            color="black" if np.dot(color, (0.3, 0.6, 0.1)) > 0.6 else "white",
            va="bottom",
            parse_math=False,  # a class may be called "$5"
            bbox={"facecolor": color, "edgecolor": "none", "alpha": 0.8, "pad": _PADDING},
            zorder=5,
        )
        text.set_in_layout(False)
        size = np.array(text.get_window_extent().size) + 2 * margin
        if size[0] > frame.width:
            text.set_text(text.get_text()[: int(len(text.get_text()) * frame.width / size[0]) - 1])
            size = np.array(text.get_window_extent().size) + 2 * margin
        place = _find_place(size, boxes[number], frame, boxes, taken)
        if place is None:
            text.remove()
        else:
            x, y = panel.transData.inverted().transform(place + margin)
            text.set_position((x, y))
            taken = np.concatenate([taken, [[place, place + size]]])


def _find_place(
    size: np.ndarray, box: np.ndarray, frame: BboxBase, boxes: np.ndarray, labels: np.ndarray
) -> np.ndarray | None:
    """Return the lower left corner of a label near its box; None if there is no room.

    Boxes and labels, (N, 2, 2), are lower left and upper right corners. A small part of other
    objects may be covered, and nothing of other labels.
    """
    (left, bottom), (right, top), (width, height) = *box, size
    for place in (
        (left, top),
        (left, top - height),
        (left, bottom - height),
        (right - width, top),
        (right - width, bottom - height),
        (right, top - height),
        (left - width, top - height),
    ):
        start = np.clip(place, frame.min, np.maximum(frame.max - size, frame.min))
        others = np.concatenate([boxes, labels])
        shared = np.minimum(others[:, 1], start + size) - np.maximum(others[:, 0], start)
        covered = shared.clip(min=0).prod(1)
        limits = _COVERED * (boxes[:, 1] - boxes[:, 0]).prod(1)
        if (covered <= np.concatenate([limits, np.zeros(len(labels))])).all():
            return start
    return None


def _color(label: int, number: int, *, single: bool) -> _Color:
    """Return the color of object `number` of a class, which may be the `single` one."""
    if single:
        return PALETTE[(label + number) % len(PALETTE)]
    shade, base = _SHADES[number % len(_SHADES)], PALETTE[label % len(PALETTE)]
    red, green, blue = (x + abs(shade) * ((shade > 0) - x) for x in base)
    return red, green, blue
