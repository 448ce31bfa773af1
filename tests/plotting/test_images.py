import numpy as np
import pytest
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.evaluation.run import ImagePair, LabeledBoxes
from brloss_d2.plotting import draw_comparison
from brloss_d2.plotting.images import _CROWDED


def boxes(count: int, *, scored: bool, label: int = 0) -> LabeledBoxes:
    grid = np.arange(count)[:, None] * 3.0 + np.array([[2.0, 2.0, 12.0, 14.0]])
    return LabeledBoxes(grid, np.full(count, label), np.full(count, 0.87) if scored else None)


def image_file(folder, name="a.png", size=(80, 60)) -> str:
    Image.new("RGB", size, "white").save(folder / name)
    return str(folder / name)


def colors(path) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_draws_every_image(tmp_path, count):
    file = image_file(tmp_path)
    pairs = [ImagePair(file, boxes(2, scored=False), boxes(1, scored=True))] * count
    draw_comparison(pairs, ["nut"], str(tmp_path / "new" / "out.png"), title="all of them")
    width, height = Image.open(tmp_path / "new" / "out.png").size
    assert (width > 2 * height) == (count <= 2)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.png"]  # no temporary file


def test_both_sides_show_a_class_in_its_color(tmp_path):
    orange, blue = (255, 127, 14), (31, 119, 180)
    file, none = image_file(tmp_path), boxes(0, scored=True)
    for name, truth, found in (
        ("left", boxes(1, scored=False), none),
        ("right", none, boxes(1, scored=True)),
    ):
        draw_comparison([ImagePair(file, truth, found)], ["nut"], str(tmp_path / f"{name}.png"))
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        where = np.nonzero((picture[: -picture.shape[0] // 4] == orange).all(-1))[1].mean()
        assert (where < picture.shape[1] / 2) == (name == "left")
    other = [ImagePair(file, boxes(1, scored=False, label=1), none)]
    draw_comparison(other, ["nut", "bolt"], str(tmp_path / "other.png"))
    assert blue in colors(tmp_path / "other.png")
    assert orange not in colors(tmp_path / "other.png")


def test_crowded_empty_and_differently_sized_images(tmp_path):
    crowded = ImagePair(
        image_file(tmp_path), boxes(_CROWDED + 1, scored=False), boxes(20, scored=True, label=12)
    )
    nothing = boxes(0, scored=False)
    empty = ImagePair(image_file(tmp_path, "b.png", (60, 90)), nothing, boxes(0, scored=True))
    draw_comparison([crowded, empty], [str(i) for i in range(13)], str(tmp_path / "out.png"))
    draw_comparison([empty], ["nut"], str(tmp_path / "empty.png"))
    assert (tmp_path / "out.png").exists() and (tmp_path / "empty.png").exists()


@pytest.mark.parametrize(
    ("file", "out", "expected"),
    [
        ("a.png", "out.xyz", r"out\.xyz: expected a name that ends in \.png"),
        ("a.png", "a.png/out.png", "Cannot write"),
        ("b.png", "out.png", r"Image file missing: .*b\.png"),
        ("text.png", "out.png", r"Image file unreadable: .*text\.png"),
    ],
)
def test_failures_are_input_errors_and_leave_no_file(tmp_path, file, out, expected):
    image_file(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    pair = ImagePair(str(tmp_path / file), boxes(1, scored=False), boxes(1, scored=True))
    with pytest.raises(InputError, match=expected):
        draw_comparison([pair], ["nut"], str(tmp_path / out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "text.png"]
