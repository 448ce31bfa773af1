"""The sheet about training data."""

from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.evaluation.run import LabeledBoxes
from brloss_d2.plotting import data_sheet
from brloss_d2.plotting.data_sheet import DataSheet, draw_data_sheet

NAMES = ["a $b$ nut", *(f"class {i}" for i in range(30))]


def sheet(images: int = 5, objects: int = 3, sizes=(10.0, 20.0), anchors=(16.0,)) -> DataSheet:
    boxes = np.array([[2.0 * i, 3, 2 * i + 9, 15] for i in range(objects)]).reshape(-1, 4)
    masks = np.zeros((objects, 40, 60), bool)
    masks[:, 5:9, 5:9] = True
    found = LabeledBoxes(boxes, np.zeros(objects, int), masks=masks)
    image = np.full((40, 60, 3), 90, np.uint8)
    counts = {name: 5 * number for number, name in enumerate(NAMES)}
    return DataSheet([(image, found)] * images, NAMES, counts, np.array(sizes), list(anchors))


def drawn(what: DataSheet, path) -> dict[str, list[str]]:
    """Draw a sheet; return its titles, labels of axes and other texts."""
    figures = []
    with patch.object(data_sheet, "save_figure", lambda figure, path: figures.append(figure)):
        draw_data_sheet(what, str(path))
    charts = figures[0].axes[-2:]
    return {
        "titles": [axes.get_title() for axes in charts],
        "ticks": [text.get_text() for text in charts[0].get_yticklabels()],
        "lines": [line.get_xdata()[0] for line in charts[1].get_lines()],
        "names": [text.get_text() for axes in figures[0].axes[:-2] for text in axes.texts],
    }


def test_a_sheet(tmp_path):
    draw_data_sheet(sheet(), str(tmp_path / "data.png"))
    with Image.open(tmp_path / "data.png") as image:
        assert min(image.size) > 500 and image.convert("L").getextrema()[0] < 100
    found = drawn(sheet(), "")
    assert found["titles"] == ["20 rarest of 31 classes", ""]
    assert found["ticks"][:2] == ["a $b$ nut", "class 0"], "the rarest first"
    assert found["lines"] == [16.0]
    assert found["names"][:1] == ["a $b$ nut"]


@pytest.mark.parametrize(
    "options",
    [
        {"images": 1, "objects": 0, "sizes": (), "anchors": ()},
        {"images": 1, "sizes": (0.5,), "anchors": ()},
        {"sizes": (), "anchors": (32.0, 64.0)},
        {"objects": 30},
    ],
)
def test_odd_sheets(tmp_path, options):
    found = drawn(sheet(**options), "")
    assert bool(found["names"]) == (0 < options.get("objects", 3) < 30)
    draw_data_sheet(sheet(**options), str(tmp_path / "data.png"))


def test_names_of_unknown_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.png"):
        draw_data_sheet(sheet(), str(tmp_path / "data.xyz"))
