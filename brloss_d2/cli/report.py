"""The page `report.html` of a run: what was trained, how good it is, and what went wrong."""

import os
from collections.abc import Iterator

from brloss_d2 import __version__
from brloss_d2.cli import report_sections as sections
from brloss_d2.cli.report_sections import Findings
from brloss_d2.engine.folder import DATA_SHEET, REPORT
from brloss_d2.errors import InputError
from brloss_d2.plotting.page import Html, element, joined, page
from brloss_d2.plotting.run_plots import TrainedRun, read_metrics
from brloss_d2.utils.files import write_text

_WORST = (
    "Those with the most missed objects plus false detections, {}; each counts one, so that an "
    "object of the wrong class counts two. Left: the truth, missed objects dashed. Right: the "
    "predictions, false ones dashed."
)


def write_report(output_dir: str, found: Findings | None, reason: str = "") -> str:
    """Write `<output_dir>/report.html`, complete or not at all, and return its path.

    What is missing or damaged, such as the metrics of the training, is a sentence of the page.

    Args:
        output_dir: output folder of a training.
        found: what an analysis found; None if there was nothing to analyze.
        reason: reason why there was nothing.

    Raises:
        InputError: the page cannot be written.
    """
    name = os.path.basename(os.path.abspath(output_dir))
    try:
        log = TrainedRun(name, read_metrics(os.path.join(output_dir, "metrics.json")), None)
    except InputError as error:
        log = TrainedRun(name, {}, None, str(error))
    introduction = element("p", f"Made by brloss-analyze, brloss_d2 {__version__}.", class_="faint")
    contents = dict(_contents(output_dir, log, found, reason))
    path = os.path.join(output_dir, REPORT)
    write_text(path, page(f"Run {name}", introduction, contents))
    return path


def _contents(
    output_dir: str, log: TrainedRun, found: Findings | None, reason: str
) -> Iterator[tuple[str, Html]]:
    """Yield title and content of each section."""
    headline = element("p", reason) if found is None else sections.headline(found)
    yield "Result", joined([headline, sections.last_evaluation(log)])
    yield "Training", sections.training(output_dir)
    if found is not None:
        yield "Classes", sections.classes(found)
    elif any("/AP-" in name for name in log.metrics):
        yield "Classes", sections.classes_of_log(log)
    yield "Curves", sections.curves(log, found)
    if found is not None:
        yield "Errors", sections.errors(found)
        yield "Sizes", sections.sizes(found.analysis)
    if os.path.isfile(os.path.join(output_dir, DATA_SHEET)):
        yield "Data", sections.data_sheet(output_dir)
    if found is not None:
        text = f"Images spread over the dataset; predictions {found.kept}."
        yield "Predictions", sections.pictures(found.predictions, text)
        yield "Worst images", sections.pictures(found.worst, _WORST.format(found.kept))
    yield "Use", sections.use(output_dir)
