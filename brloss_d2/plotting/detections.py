"""Draw what was found in one image."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from brloss_d2.evaluation.run import LabeledBoxes
from brloss_d2.plotting.comparison import draw_panel
from brloss_d2.plotting.figures import save_figure

_SIDE = 8.0  # inches of the longer side: letters have the same share of every picture
_DPI = (100, 250)


def draw_detections(
    image: np.ndarray,
    objects: LabeledBoxes,
    class_names: Sequence[str] | Mapping[int, str],
    path: str,
) -> None:
    """Write an image with boxes, masks, class names and scores, the best object on top.

    Args:
        image: (H, W, 3), RGB, 0..255.
        objects: what to draw.
        class_names: name of each label.
        path: the file to write; its suffix gives the format. Its longer side has as many pixels as
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
    draw_panel(panel, image, _best_last(objects), class_names, has_legend=False)
    save_figure(figure, path)


def _best_last(objects: LabeledBoxes) -> LabeledBoxes:
    if objects.scores is None:
        return objects
    order = np.argsort(objects.scores, kind="stable")
    masks = None if objects.masks is None else objects.masks[order]
    return LabeledBoxes(objects.boxes[order], objects.labels[order], objects.scores[order], masks)
