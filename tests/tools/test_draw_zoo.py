"""The figure of the model zoo: every published time is in it, if the AP was published too."""

from pathlib import Path

from matplotlib.image import imread

from brloss_d2.model_zoo.entries import published
from tools import draw_zoo


def test_every_published_time_is_a_point() -> None:
    found = {task: list(draw_zoo.points(task)) for task in draw_zoo.TASKS}
    rows = [row for row in published()["results"].values() if "seconds" in row]
    times = [row["seconds"] for row in rows if row.keys() & {"box_ap", "mask_ap"}]
    assert len(times) == len(rows) - 1, "of Co-DETR with RS, the time alone"
    assert sorted(p.seconds for points in found.values() for p in points) == sorted(times)
    expected = draw_zoo.Point("Cascade R-CNN R50", "rs", 1.28, 41.1)
    assert expected in found["box_ap"] and expected not in found["mask_ap"]
    assert draw_zoo.Point("Mask R-CNN R50, LVIS", "brs", 0.35, 25.8) in found["mask_ap"]
    for points in found.values():
        detectors, losses = ({getattr(p, key) for p in points} for key in ("detector", "loss"))
        assert len(detectors) <= len(draw_zoo.MARKERS), "a shape for each"
        assert losses <= set(draw_zoo.COLORS) == set(draw_zoo.NAMES)


def test_the_picture(tmp_path: Path) -> None:
    file = tmp_path / "new" / "zoo.png"
    assert draw_zoo.main(["--output", str(file)]) == 0
    height, width, _ = imread(file).shape
    assert height > 500 and width > 1000
