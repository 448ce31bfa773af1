import warnings

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.evaluation.run import ImagePair, LabeledBoxes
from brloss_d2.plotting import draw_comparison, draw_detections, images
from brloss_d2.plotting.figures import save_figure
from brloss_d2.plotting.images import _CROWDED

NAMES = ("nut", "bolt", "a class with a long name")


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


def labels_and_boxes(monkeypatch, tmp_path, objects, size, names=NAMES):
    """Draw objects and return the texts, their boxes and those of the objects, in pixels."""
    figures = []
    monkeypatch.setattr(images, "save_figure", lambda figure, path: figures.append(figure))
    image = np.full((*size, 3), 90, np.uint8)
    draw_detections(image, objects, names, str(tmp_path / "out.png"))
    (figure,) = figures
    (panel,) = figure.axes
    # With its background, which is drawn a little larger.
    extents = [t.get_bbox_patch().get_window_extent().get_points() for t in panel.texts]
    corners = panel.transData.transform(objects.boxes.reshape(-1, 2)).reshape(-1, 2, 2)
    corners = np.stack([corners.min(1), corners.max(1)], 1)
    return figure, [t.get_text() for t in panel.texts], np.array(extents), corners


def shared(a, b):
    """Area that boxes share, by pairs."""
    upper, lower = (
        np.minimum(a[:, None, 1], b[None, :, 1]),
        np.maximum(a[:, None, 0], b[None, :, 0]),
    )
    return (upper - lower).clip(min=0).prod(-1)


@pytest.mark.parametrize(
    ("count", "side", "size"),
    [
        (1, 300, (300, 300)),  # the whole image
        (12, 10, (480, 640)),
        (300, 12, (400, 500)),
        (6, 30, (40, 2000)),
        (6, 30, (2000, 40)),
        (2, 5, (12, 10)),
    ],
)
def test_labels_stay_inside_and_cover_no_small_object(monkeypatch, tmp_path, count, side, size):
    rng = np.random.default_rng(0)
    height, width = size
    start = rng.uniform(0, 1, (count, 2)) * [max(width - side, 0), max(height - side, 0)]
    boxes = np.concatenate([start, start + rng.uniform(0.5, 1, (count, 2)) * side], 1)
    objects = LabeledBoxes(boxes, rng.integers(0, 3, count), rng.uniform(0, 1, count))
    figure, texts, labels, corners = labels_and_boxes(monkeypatch, tmp_path, objects, size)
    assert len(texts) >= (count if count <= 2 else count // 4)
    assert (labels[:, 0] >= -0.5).all() and (labels[:, 1] <= figure.bbox.max + 0.5).all()
    areas = (corners[:, 1] - corners[:, 0]).prod(-1)
    assert (shared(labels, corners) <= 0.11 * areas + 2).all()
    assert (shared(labels, labels) - np.diag((labels[:, 1] - labels[:, 0]).prod(-1)) < 4).all()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("$5 a_b^c", "$5 a_b^c"),
        ("\u00e4pfel \u0444", "\u00e4pfel \u0444"),  # in the default font
        ("\U000f0000", r"\U000f0000"),  # in no font
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        (100 * "long ", "long long long long long long long lo..."),
        ("", ""),
    ],
)
def test_names_that_fonts_lack_and_long_names(monkeypatch, tmp_path, name, shown):
    objects = LabeledBoxes(np.array([[40.0, 40, 90, 90]]), np.array([0]), np.array([0.5]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")
        figure, texts, *_ = labels_and_boxes(monkeypatch, tmp_path, objects, (200, 300), [name])
        save_figure(figure, str(tmp_path / "out.png"))
    assert texts == [f"{shown} 0.50".strip()]


@pytest.mark.parametrize("classes", [1, 2])
def test_objects_of_a_class_have_colors_of_their_own(tmp_path, classes):
    grid = np.array([[5.0, 5, 25, 25], [35, 5, 55, 25], [5, 35, 25, 55], [35, 35, 55, 55]])
    truth = LabeledBoxes(grid, np.arange(4) % classes)
    picture = str(tmp_path / "out.png")
    draw_comparison(
        [ImagePair(image_file(tmp_path, size=(60, 60)), truth, boxes(0, scored=True))],
        ["nut", "bolt"],
        picture,
    )
    drawn = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    expected = [images._color(i % classes, i // classes, single=classes == 1) for i in range(4)]
    for color in np.round(255 * np.array(expected)):
        assert (np.abs(drawn - color).max(1) <= 1).any()
    assert len(set(expected)) == 4


def test_masks_are_drawn(tmp_path):
    mask = np.zeros((60, 60), bool)
    mask[10:40, 10:40] = True
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    box, labels, white = np.array([[10.0, 10, 40, 40]]), np.array([0]), np.full((60, 60, 3), 255)
    found = {}
    for name, masks in (("none", None), ("array", mask[None]), ("coded", [rle])):
        objects = LabeledBoxes(box, labels, masks=masks)
        draw_detections(white.astype(np.uint8), objects, ["nut"], str(tmp_path / f"{name}.png"))
        found[name] = colors(tmp_path / f"{name}.png")
    assert found["array"] == found["coded"]
    new = np.array(list(found["array"] - found["none"]))
    assert (np.abs(new - (255, 197, 146)).max(1) <= 1).any()  # orange on white


def test_errors_are_marked(tmp_path):
    file, box, labels = image_file(tmp_path), np.array([[10.0, 10, 40, 40]]), np.array([0])
    for name, wrong in (("unknown", None), ("missed", np.array([True]))):
        pair = ImagePair(file, LabeledBoxes(box, labels, wrong=wrong), boxes(0, scored=True))
        draw_comparison([pair], ["nut"], str(tmp_path / f"{name}.png"))
    assert (255, 0, 0) in colors(tmp_path / "missed.png") - colors(tmp_path / "unknown.png")
