"""The pictures of an analyzed run, in its folder `analysis`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import filter as matching
from functools import partial

from brloss_d2.errors import InputError
from brloss_d2.evaluation import Analysis, Calibration
from brloss_d2.evaluation.calibration import held_out
from brloss_d2.evaluation.run import ImagePair
from brloss_d2.plotting import detection_plots as plots
from brloss_d2.plotting import draw_comparison

CONFUSION = "confusion_matrix.png"


@dataclass(frozen=True)
class Drawn:
    """One image with truth and predictions.

    Attributes:
        pair: what is drawn.
        file: path of the picture; "" if there is none.
        reason: reason why there is none.
    """

    pair: ImagePair
    file: str
    reason: str = ""


def draw_charts(
    analysis: Analysis, calibration: Calibration, folder: str, *, per_class: bool
) -> list[str]:
    """Draw curves, errors and calibration, and return the paths of the pictures.

    Args:
        analysis: analysis with at least one correct detection.
        calibration: thresholds, and the map whose reliability is drawn if there is one.
        folder: folder to write to.
        per_class: whether to draw each class as well.
    """
    path = partial(os.path.join, folder)
    paths = [path("precision_recall.png"), path("scores.png")]
    plots.plot_precision_recall(analysis, paths[0])
    plots.plot_scores(analysis, calibration, paths[1])
    if analysis.errors is not None:
        paths += [path("errors.png"), path(CONFUSION)]
        plots.plot_errors(analysis.errors, paths[-2])
        plots.plot_confusion(analysis.errors, analysis.class_names, paths[-1])
    if calibration.calibration:
        kind, matches = calibration.calibration["kind"], analysis.matches
        after = held_out(matches, analysis.class_names, kind)
        scores = {"as trained": matches.scores, f"{kind} (held out)": after}
        paths.append(path("reliability.png"))
        plots.plot_reliability(scores, matches.correct, paths[-1])
    if per_class:
        paths.append(path("classes.png"))
        plots.plot_classes(analysis, paths[-1])
        paths += plots.plot_each_class(analysis, path("classes_{}.png"))
    return paths


def draw_images(
    pairs: Sequence[ImagePair], class_names: Sequence[str], folder: str, name: str
) -> list[Drawn]:
    """Draw images one by one, `<name>_01.png` and so on, in place of earlier ones.

    Args:
        pairs: truth and predictions; an image that cannot be read has no picture.
        class_names: names of the classes, K of them.
        folder: folder to write to, which exists.
        name: beginning of the names of the files.
    """
    for earlier in matching(os.listdir(folder), f"{name}_[0-9]*.png"):
        os.remove(os.path.join(folder, earlier))
    drawn = []
    for number, pair in enumerate(pairs, 1):
        file = os.path.join(folder, f"{name}_{number:02}.png")
        try:
            draw_comparison([pair], class_names, file)
            drawn.append(Drawn(pair, file))
        except InputError as error:
            drawn.append(Drawn(pair, "", str(error)))
    return drawn


def files_of(drawn: Sequence[Drawn]) -> str:
    """Return which pictures there are, and why some are missing, as one line."""
    files = [image.file for image in drawn if image.file]
    missing = [image.reason for image in drawn if not image.file]
    parts = files[:1]
    if len(files) > 1:
        parts = [f"{files[0]} to {os.path.basename(files[-1])}"]
    if missing:
        parts.append(f"{len(missing)} not drawn: {missing[0]}")
    return ", ".join(parts) or "none"
