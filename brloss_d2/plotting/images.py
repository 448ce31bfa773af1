"""Images with boxes, masks, class names and scores: single ones, and predictions next to truth.

detectron2's `Visualizer` and torchvision draw without a legend, without rims around the boxes and
with one text size, so that crowded small images are hard to read.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from brloss_d2.data import read_image
from brloss_d2.evaluation.run import ImagePair, LabeledBoxes
from brloss_d2.plotting.figures import new_figure, save_figure

_PAIRS_PER_ROW = 2
_PANEL_WIDTH = 3.3  # inches
_GAP = 0.05  # space between two pairs, fraction of the width of a panel
_SIDE = 8.0  # inches of the longer side: letters have the same share of every picture
_DPI = (100, 250)  # range for a single image
_CROWDED = 10  # number of boxes from which class names give way to the legend
_MASK_ALPHA = 0.45
_PALETTE = [colormaps["tab10"](i) for i in (1, 0, 2, 3, 4, 6, 8, 9, 5, 7)]


def draw_comparison(
    pairs: Sequence[ImagePair], class_names: Sequence[str], path: str, *, title: str = ""
) -> None:
    """Draw ground truth and predictions side by side, two images per row, one color per class.

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
    figure, panels = _grid(math.ceil(len(pairs) / columns), columns, images[0].shape)
    for number, (pair, image) in enumerate(zip(pairs, images, strict=True)):
        left, right = panels[divmod(number, columns)]
        _draw_panel(left, image, pair.ground_truth, class_names)
        _draw_panel(right, image, pair.predictions, class_names)
        if number < columns:
            left.set_title("ground truth", fontsize=10)
            right.set_title("predictions", fontsize=10)
    objects = [objects for pair in pairs for objects in (pair.ground_truth, pair.predictions)]
    labels = sorted({int(label) for o in objects for label in o.labels})
    if labels:
        handles = [Patch(color=_color(label), label=class_names[label]) for label in labels]
        legend = figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(handles), 8),
            frameon=False,
            fontsize=9,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def draw_detections(
    image: np.ndarray,
    objects: LabeledBoxes,
    class_names: Sequence[str] | Mapping[int, str],
    path: str,
) -> None:
    """Draw one image with boxes, masks, class names and scores, the best object on top.

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
    size = (max(_SIDE * side / longer, 0.05) for side in (width, height))
    figure = Figure(figsize=tuple(size), dpi=np.clip(longer / _SIDE, *_DPI))
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set_axis_off()
    if objects.scores is not None:
        order = np.argsort(objects.scores, kind="stable")
        masks = None if objects.masks is None else objects.masks[order]
        objects = LabeledBoxes(
            objects.boxes[order], objects.labels[order], objects.scores[order], masks
        )
    _draw_panel(panel, image, objects, class_names, has_legend=False)
    save_figure(figure, path)


def _grid(rows: int, columns: int, shape: Sequence[int]) -> tuple[Figure, np.ndarray]:
    """Return an empty figure and its panels, (rows, columns, 2)."""
    height = _PANEL_WIDTH * shape[0] / shape[1]
    ratios = [1, 1, _GAP] * columns
    figure = new_figure(_PANEL_WIDTH * sum(ratios), rows * (height + 0.05) + 0.8)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    panels = figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels.reshape(rows, columns, 3)[..., :2]


def _draw_panel(
    panel: Axes,
    image: np.ndarray,
    objects: LabeledBoxes,
    class_names: Sequence[str] | Mapping[int, str],
    *,
    has_legend: bool = True,
) -> None:
    """Draw an image, (H, W, 3) of 0..255, and its objects, the last one on top.

    With a legend, which names the colors, a crowded image has no other names.
    """
    height, width = image.shape[:2]
    # A pixel covers [i, i + 1], as in the boxes.
    extent = (0, width, height, 0)
    panel.imshow(image, extent=extent, interpolation="bilinear")
    if objects.masks is not None and len(objects.masks):
        overlay = np.zeros((*objects.masks.shape[1:], 4))
        for mask, label in zip(objects.masks, objects.labels, strict=True):
            overlay[mask] = (*_color(label)[:3], _MASK_ALPHA)
            # An opaque rim: pixels of the mask with a neighbor outside it.
            inner = np.pad(mask, 1)
            inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
            overlay[mask & ~inner, 3] = 1.0
        panel.imshow(overlay, extent=extent)
    crowded = len(objects.boxes) > _CROWDED
    for number, (box, label) in enumerate(zip(objects.boxes, objects.labels, strict=True)):
        name = "" if crowded and has_legend else class_names[label]
        score = "" if objects.scores is None else f"{objects.scores[number]:.2f}"
        _draw_box(panel, box, f"{name} {score}".strip(), _color(label), small=crowded)


def _draw_box(
    panel: Axes, box: np.ndarray, text: str, color: tuple[float, ...], *, small: bool
) -> None:
    x0, y0, x1, y1 = box
    outline = Rectangle(
        (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.8, snap=False
    )
    # A dark rim keeps a color visible on a background of the same color.
    outline.set_path_effects([withStroke(linewidth=2.8, foreground="black", alpha=0.6)])
    panel.add_patch(outline)
    if text:
        panel.annotate(
            text,
            (x0, y0),
            xytext=(1.5, -1.5),
            textcoords="offset points",
            fontsize=5.5 if small else 7.5,
            color="white",
            va="top",
            annotation_clip=True,
            parse_math=False,  # a class may be called "$5"
            bbox={"facecolor": color, "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )


def _color(label: int) -> tuple[float, float, float, float]:
    return _PALETTE[label % len(_PALETTE)]
