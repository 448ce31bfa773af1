"""The sections of `report.html`, each of them HTML."""

import os
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from brloss_d2.cli.analysis_pictures import Drawn
from brloss_d2.cli.run_facts import settings_of, training_in_log
from brloss_d2.data.categories import CATEGORIES_FILE, in_order, read_categories
from brloss_d2.engine.folder import DATA_SHEET
from brloss_d2.errors import InputError
from brloss_d2.evaluation import Analysis
from brloss_d2.evaluation.analysis import KINDS
from brloss_d2.evaluation.calibration import FILE_NAME as CALIBRATION
from brloss_d2.evaluation.counts import COLUMNS, Counts
from brloss_d2.plotting import detection_plots as plots
from brloss_d2.plotting.page import Html, chart, element, joined, picture, table, tiles
from brloss_d2.plotting.run_plots import TrainedRun, draw_ap, draw_losses
from brloss_d2.utils.text import counted, first_few

_MEANINGS = {
    "AP": "average precision of COCO: mean over IoU 0.50 to 0.95 and classes; higher is better",
    "AP50": "AP at IoU 0.50",
    "AP75": "AP at IoU 0.75",
    "oLRP": "optimal localization recall precision error, mean of the classes; lower is better",
    "precision": "share of the detections that are right",
    "recall": "share of the objects that are found",
    "F1": "harmonic mean of precision and recall",
}
_SIZES = {
    "small": ("s", "area below 32 x 32 pixels"),
    "medium": ("m", "area from 32 x 32 to 96 x 96 pixels"),
    "large": ("l", "area above 96 x 96 pixels"),
}
_SHAPES = {"bbox": "boxes", "segm": "masks"}
_LOGGED = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "oLRP")
_WEIGHTS = ("model_best.pth", "model_final.pth", "model_final_ema.pth")
_MOST_DRAWN = 120  # classes in a confusion matrix that can be read
_MOST_PAIRS = 10  # rows of the list of confusions
_MOST_NAMES = 20  # classes that are named next to their number


@dataclass(frozen=True)
class Findings:
    """What an analysis found.

    Attributes:
        analysis: metrics, curves and errors.
        counts: true and false positives and missed objects from a score threshold on.
        kept: which detections are counted and drawn: "from score 0.5 on ...".
        predictions: images spread over the dataset.
        worst: images with the most errors, the worst one first.
        confusion: picture of the confusion matrix; "" if there is none.
    """

    analysis: Analysis
    counts: Counts
    kept: str
    predictions: Sequence[Drawn]
    worst: Sequence[Drawn]
    confusion: str


def headline(found: Findings) -> Html:
    """Return the most important numbers of an analysis, and what they mean."""
    analysis, total = found.analysis, found.counts.total()
    shares = {"precision": total.precision, "recall": total.recall, "F1": total.f1}
    values = {name: analysis.metrics[name] for name in ("AP", "AP50", "AP75", "oLRP")}
    values |= {name: 100 * float(value[0]) for name, value in shares.items()}
    objects = counted(int(analysis.matches.num_objects.sum()), "object")
    text = (
        f"{_SHAPES[analysis.task].capitalize()} in {counted(analysis.num_images, 'image')} with "
        f"{objects}, percent. Precision, recall and F1 are those of all classes together, "
        f"{found.kept}."
    )
    return joined([element("p", text), tiles(values), table((), _MEANINGS.items())])


def last_evaluation(log: TrainedRun) -> Html:
    """Return the last metrics of a training, of boxes and masks; nothing if there are none."""
    tasks = [task for task in _SHAPES if f"{task}/AP" in log.metrics]
    if not tasks:
        return Html()
    names = [n for n in _LOGGED if any(f"{task}/{n}" in log.metrics for task in tasks)]
    rows = [[_SHAPES[task], *(log.last(f"{task}/{name}") for name in names)] for task in tasks]
    text = f"Last evaluation during the training, iteration {log.last_evaluation:,.0f}"
    if all(np.isnan(log.last(f"{task}/AP")) for task in tasks):
        text += ": nothing was found"
    return joined([element("h3", text), table(["of", *names], rows)])


def training(output_dir: str) -> Html:
    """Return what was trained, as config and log of a run tell it."""
    log = training_in_log(os.path.join(output_dir, "log.txt"))
    command = log.pop("command", "")
    named = re.search(r"--config(?:-file)?[ =](\S+)", command)
    facts = {"Config": named[1]} if named else {}
    facts |= settings_of(os.path.join(output_dir, "config.yaml"))
    with suppress(InputError):  # none, of datasets that detectron2 knows
        names = in_order(read_categories(os.path.join(output_dir, CATEGORIES_FILE)))
        facts["Classes"] = f"{len(names):,}: {first_few(names, count=_MOST_NAMES)}"
    if seed := log.pop("seed", ""):
        facts["Seed"] = seed
    if log:
        facts["Versions"] = ", ".join(f"{name} {version}" for name, version in log.items())
    parts = [table((), facts.items())]
    if command:
        parts += [element("h3", "Command"), element("pre", f"python {command}")]
    return joined(parts)


def classes(found: Findings) -> Html:
    """Return counts and metrics of each class, the rarest one first."""
    analysis, values = found.analysis, found.counts.rows()
    rows = []
    for label in found.counts.by_rarity():
        numbers, shares = np.split(values[label], [4])
        both = float(analysis.class_ap[label]), 100 * float(analysis.lrp.olrp[label])
        name = analysis.class_names[label]
        rows.append([name, *map(int, numbers), *map(float, shares), *both])
    text = (
        "The rarest class of these images first, those without objects last; percent. True "
        "positives (TP), false positives (FP), missed objects (FN), precision (P), recall (R) and "
        f"F1 are those of the detections {found.kept}; AP and oLRP are those of all scores."
    )
    return joined([element("p", text), table(["class", *COLUMNS, "AP", "oLRP"], rows)])


def classes_of_log(log: TrainedRun) -> Html:
    """Return the AP of each class as the last evaluation of a training logged it."""
    rows = []
    for name in log.metrics:
        task, is_class, class_name = name.partition("/AP-")
        if is_class:
            rows.append((class_name, _SHAPES.get(task, task), log.last(name)))
    text = "AP of the last evaluation, percent, the lowest one first."
    ranked = sorted(rows, key=lambda row: np.nan_to_num(row[2], nan=-1.0))
    return joined([element("p", text), table(["class", "of", "AP"], ranked)])


def curves(log: TrainedRun, found: Findings | None) -> Html:
    """Return charts of a training and of its analysis; those that there is data for."""
    charts: dict[str, Callable[[Axes], object]] = {}
    if log.metrics:
        charts["Losses over the iterations"] = lambda axes: draw_losses(axes, [log])
    if any(f"{task}/AP" in log.metrics for task in _SHAPES):
        charts["AP over the iterations"] = lambda axes: draw_ap(axes, [log])
    if found is not None:
        analysis = found.analysis
        matches = analysis.matches
        charts["Precision against recall"] = lambda axes: plots.draw_mean_precision(axes, analysis)
        if len(analysis.class_names) > 1:
            each = "Precision against recall, class by class"
            charts[each] = lambda axes: plots.draw_class_precision(axes, analysis)
        charts["Detections by score"] = lambda axes: plots.draw_score_histogram(axes, matches)
        charts["LRP and F1 by score threshold"] = lambda axes: plots.draw_thresholds(axes, matches)
    figures = [
        element("figure", chart(draw, title), element("figcaption", title))
        for title, draw in charts.items()
    ]
    reason = [element("p", log.reason)] if log.reason else []
    return joined([*reason, element("div", joined(figures), class_="pictures charts")])


def errors(found: Findings) -> Html:
    """Return the kinds of errors, and the classes taken for each other."""
    kinds, names = found.analysis.errors, found.analysis.class_names
    if kinds is None:
        return element("p", "Kinds of errors are counted by hotcoco, which did not evaluate here.")
    text = (
        "Kinds of errors at IoU 0.5 (TIDE), over all scores, and the AP50 that the detector would "
        "gain without each."
    )
    lost = [(kind, what, kinds.counts[kind], kinds.ap_loss[kind]) for kind, what in KINDS.items()]
    parts = [element("p", text), table(["kind", "meaning", "errors", "AP50 lost"], lost)]
    if found.confusion and 1 < len(names) <= _MOST_DRAWN:
        image = _picture(found.confusion, "Confusion matrix", class_="chart")
        parts += [element("h3", "Confusion of classes"), element("div", image, class_="scroll")]
    rows = [
        (names[i], names[j], int(kinds.confusion[i, j]), float(kinds.shares[i, j]))
        for i, j in kinds.most_confused(_MOST_PAIRS)
    ]
    if rows:
        title = f"Classes taken for another, from score {kinds.score_threshold:.4f} on"
        headers = ["true", "found", "objects", "percent of the class"]
        parts += [element("h3", title), table(headers, rows)]
    return joined(parts)


def sizes(analysis: Analysis) -> Html:
    """Return AP and oLRP of small, medium and large objects."""
    rows = [
        (name, text, analysis.metrics[f"AP{suffix}"], analysis.metrics[f"oLRP{suffix}"])
        for name, (suffix, text) in _SIZES.items()
    ]
    text = "Percent; a dash where there are no objects of that size."
    return joined([element("p", text), table(["objects", "size", "AP", "oLRP"], rows)])


def data_sheet(output_dir: str) -> Html:
    """Return the sheet about the training data."""
    image = _picture(os.path.join(output_dir, DATA_SHEET), "Images, classes and sizes")
    text = "Training images as the model gets them, objects of each class, and sizes of objects."
    return joined([element("p", text), element("div", image, class_="scroll")])


def pictures(drawn: Sequence[Drawn], text: str) -> Html:
    """Return pictures of truth and predictions with the number of errors of each.

    Args:
        drawn: images, and their pictures.
        text: what they are.
    """
    figures = []
    for item in drawn:
        image = _picture(item.file, "Truth and predictions") if item.file else item.reason
        name, (missed, false) = os.path.basename(item.pair.file_name), item.pair.errors
        caption = element("figcaption", f"{name}: {missed} missed, {false} false")
        figures.append(element("figure", image, caption))
    grid = element("div", joined(figures), class_="pictures")
    return joined([element("p", text if drawn else "None."), grid])


def use(output_dir: str) -> Html:
    """Return the commands that use the weights of a run, and give them away."""
    kept = [name for name in _WEIGHTS if os.path.isfile(os.path.join(output_dir, name))]
    if not kept:
        return element("p", f"There are no weights in {output_dir}.")
    folder, text = shlex.quote(output_dir), "Detect objects in a photo"
    if os.path.isfile(os.path.join(output_dir, CALIBRATION)):
        text += ", from the threshold of calibration.json on if it was chosen for the weights"
    parts = [element("p", f"{text}:")]
    for name in kept:
        command = f"brloss-predict --config-file {folder}/config.yaml --weights {folder}/{name}"
        parts.append(element("pre", f"{command} --input photo.jpg"))
    parts.append(element("p", "Make a folder to give away, with a model card, without paths:"))
    parts.append(element("pre", f"brloss-share --output-dir {folder} --to FOLDER"))
    return joined(parts)


def _picture(file: str, alt: str, **attributes: str) -> Html:
    try:
        return picture(file, alt, **attributes)
    except InputError as error:
        return element("p", str(error))
