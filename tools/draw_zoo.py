"""Draw the published AP of the model zoo over the published time of an iteration.

    python tools/draw_zoo.py                          # docs/figures/ap_over_time.png
    python tools/draw_zoo.py --output somewhere.png

A line joins the two forms of a loss, with and without buckets, in the same detector.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from brloss_d2.cli.common import make_parser, run_program
from brloss_d2.model_zoo import list_configs
from brloss_d2.model_zoo.entries import published
from brloss_d2.plotting.figures import PALETTE, new_figure, save_figure, tidy

COLORS = dict(
    zip(("brs", "rs", "bap", "ap", "alrp", "dr", "ce"), PALETTE, strict=True), focal="#777777"
)
NAMES = {
    "brs": "BRS",
    "rs": "RS",
    "bap": "BAP",
    "ap": "AP",
    "alrp": "aLRP",
    "dr": "DR",
    "ce": "cross-entropy",
    "focal": "focal",
}
DETECTORS = {
    "faster_rcnn": "Faster R-CNN",
    "cascade_rcnn": "Cascade R-CNN",
    "mask_rcnn": "Mask R-CNN",
    "atss": "ATSS",
    "paa": "PAA",
    "retinanet": "RetinaNet",
    "co_deformable_detr": "Co-DETR",
}
PAIRS = (("rs", "brs"), ("ap", "bap"))
MARKERS = "osD^vPX*"
TASKS = {"box_ap": "box AP", "mask_ap": "mask AP"}
SECONDS = (0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)


@dataclass(frozen=True)
class Point:
    """A published result.

    Attributes:
        detector: detector, backbone and, if it is not COCO, dataset.
        loss: name of the loss.
        seconds: seconds per iteration.
        ap: AP in percent.
    """

    detector: str
    loss: str
    seconds: float
    ap: float


def points(task: str) -> Iterator[Point]:
    """Yield what was published with a time: masks of Mask R-CNN, boxes of the others.

    Args:
        task: "box_ap" or "mask_ap".
    """
    for entry in list_configs():
        row = published()["results"].get(entry.name, {})
        has_masks = entry.detector == "mask_rcnn"
        if {"seconds", task} <= row.keys() and has_masks == (task == "mask_ap"):
            detector = DETECTORS.get(entry.detector, entry.detector)
            data = {"lvis_v1": ", LVIS", "cityscapes": ", Cityscapes"}.get(entry.data, "")
            backbone = entry.backbone.replace("R_", "R").replace("_", "-")
            yield Point(f"{detector} {backbone}{data}", entry.loss, row["seconds"], row[task])


def draw(axes: Axes, found: Sequence[Point], label: str) -> None:
    """Draw results, with the shape of a detector, the color of a loss and lines between pairs."""
    detectors = dict.fromkeys(point.detector for point in found)
    markers = dict(zip(detectors, MARKERS, strict=False))
    by_key = {(point.detector, point.loss): point for point in found}
    for detector in detectors:
        for pair in PAIRS:
            ends = [by_key[detector, loss] for loss in pair if (detector, loss) in by_key]
            axes.plot([p.seconds for p in ends], [p.ap for p in ends], color="#bbbbbb", zorder=1)
    for point in found:
        axes.scatter(
            point.seconds,
            point.ap,
            s=55,
            marker=markers[point.detector],
            color=COLORS[point.loss],
            edgecolor="white",
            linewidth=0.7,
            zorder=2,
        )
    axes.set_xscale("log")
    axes.xaxis.set(
        major_locator=FixedLocator(SECONDS),
        minor_locator=NullLocator(),
        major_formatter=ScalarFormatter(),
    )
    tidy(axes, xlabel="seconds per iteration", ylabel=label)
    gray = {"color": "#444444", "linestyle": ""}
    shapes = [Line2D([], [], marker=markers[d], label=d, **gray) for d in detectors]
    axes.legend(
        handles=shapes,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=2,
        frameon=False,
        fontsize=8.5,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument(
        "--output", default=str(root / "docs" / "figures" / "ap_over_time.png"), help="picture"
    )
    return run_program(_draw, parser.parse_args(argv))


def _draw(args: argparse.Namespace) -> int:
    figure = new_figure(10, 5.6)
    columns = figure.subplots(1, len(TASKS))
    losses = {}
    for axes, (task, label) in zip(columns, TASKS.items(), strict=True):
        found = list(points(task))
        draw(axes, found, label)
        losses.update(dict.fromkeys(point.loss for point in found))
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, label=NAMES[loss])
        for loss, color in COLORS.items()
        if loss in losses
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    save_figure(figure, args.output)
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
