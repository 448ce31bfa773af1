"""From images to predictions, files and pictures."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image
from pycocotools.coco import COCO

import brloss_d2
from brloss_d2.checkpoint import fingerprint
from brloss_d2.errors import InputError
from brloss_d2.prediction import Predictor
from tests.helpers.bright_squares import SQUARE, BrightSquares, square_image

BLUE = 220 / 255


def weights(run_folder: Path) -> Path:
    return run_folder / "model_final.pth"


def predict(run_folder: Path, images, **options):
    config = run_folder / "config.yaml"
    return brloss_d2.predict(config, weights(run_folder), images, device="cpu", **options)


def test_finds_the_square_in_pixels_of_the_image(run_folder: Path, square: Path) -> None:
    (found,) = predict(run_folder, square)
    assert (found.file_name, found.width, found.height) == (str(square), 48, 32)
    assert found.class_names == ["bolt"] and found.category_ids == [9]
    assert found.labels.tolist() == [1]
    assert found.scores == pytest.approx([BLUE])
    # The image is enlarged twice for the network, which smooths the edges.
    assert found.boxes[0] == pytest.approx(SQUARE, abs=1.0)
    x0, y0, x1, y1 = SQUARE
    assert found.masks.shape == (1, 32, 48) and found.masks.dtype == bool
    assert found.masks[0, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].all()
    assert found.masks.sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.15)


def test_arrays_are_rgb(run_folder: Path) -> None:
    image = square_image()
    image[..., 2] = image[..., 2] // 4 * 3  # the model reads blue, of BGR images
    found, nothing = predict(run_folder, [image, np.zeros_like(image)])
    assert found.scores == pytest.approx([0.75 * BLUE])
    assert len(nothing) == 0 and nothing.masks.shape == (0, 32, 48)
    assert nothing.to_coco(1) == []


@pytest.mark.parametrize(
    ("threshold", "calibrated", "classes"),
    [
        (None, None, ["bolt"]),  # the model's own threshold, 0.5
        (0.4, None, ["bolt", "nut"]),  # lower than the model's own
        (None, 0.4, ["bolt", "nut"]),
        (0.6, 0.4, ["bolt"]),
        (0.9, None, []),
        (None, 0.9, []),
    ],
)
def test_thresholds(run_folder: Path, square: Path, threshold, calibrated, classes) -> None:
    if calibrated is not None:
        content = {"score_threshold": calibrated, "per_class": {"nut": 0.99}, "calibration": {}}
        (run_folder / "calibration.json").write_text(json.dumps(content))
    (found,) = predict(run_folder, square, score_threshold=threshold)
    assert found.class_names == classes


@pytest.mark.parametrize("stale", [False, True])
def test_a_calibration_of_other_weights_is_not_used(
    run_folder: Path, square: Path, caplog: pytest.LogCaptureFixture, *, stale: bool
) -> None:
    evaluated = torch.load(weights(run_folder), weights_only=True)["model"]
    evaluated["scale"] += stale
    content = {"score_threshold": 0.4, "computed_on": {"weights": fingerprint(evaluated)}}
    (run_folder / "calibration.json").write_text(json.dumps(content))
    (found,) = predict(run_folder, square)
    assert found.class_names == (["bolt"] if stale else ["bolt", "nut"])
    assert ("calibration.json is of other weights" in caplog.text) == stale


def test_a_threshold_is_inclusive(run_folder: Path, square: Path) -> None:
    (found,) = predict(run_folder, square, score_threshold=0.4)
    for score in found.scores.tolist():
        (again,) = predict(run_folder, square, score_threshold=score)
        assert again.scores[-1] == score


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", r"Cannot read .*calibration\.json"),
        ("[]", "score_threshold is None: expected a number from 0 to 1"),
        ('{"score_threshold": "0.4"}', "score_threshold is '0.4': expected"),
        ('{"score_threshold": NaN}', "score_threshold is nan: expected"),
        ('{"score_threshold": 40}', "score_threshold is 40: expected"),
    ],
)
def test_bad_calibration_files(run_folder: Path, square: Path, content, expected) -> None:
    (run_folder / "calibration.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        predict(run_folder, square)
    assert predict(run_folder, square, score_threshold=0.1)  # not read


def test_batches_hold_the_same(run_folder: Path, square: Path) -> None:
    predictor = Predictor.load(run_folder / "config.yaml", weights(run_folder), device="cpu")
    images = [square_image()] * 3 + [np.zeros((20, 90, 3), np.uint8)]
    found = [p for p, _ in predictor.stream(images, batch_size=3, on_error=pytest.fail)]
    assert predictor.model.batch_sizes == [3, 1]
    (alone,) = predictor([square_image()])
    assert all(np.array_equal(p.boxes, alone.boxes) for p in found[:3])
    assert (len(found[3]), found[3].width, found[3].height) == (0, 90, 20)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(run_folder: Path, tmp_path: Path, workers: int) -> None:
    """Detections, their order and errors; only a few images are read ahead."""
    predictor = Predictor.load(run_folder / "config.yaml", weights(run_folder), device="cpu")
    files = [tmp_path / f"{i}.png" for i in range(9)]
    for i, file in enumerate(files):
        Image.fromarray(np.pad(square_image(), ((0, 0), (i, 40 * (i % 2)), (0, 0)))).save(file)
    files[4].write_bytes(b"no image")
    taken: list[Path] = []
    results = {}
    for number in (0, workers):
        errors: list[InputError] = []
        taken.clear()
        given = (taken.append(file) or file for file in files)
        found = predictor.stream(given, batch_size=2, num_workers=number, on_error=errors.append)
        first = next(found)
        assert len(taken) <= 2 + (2 + number if number else 0), "no more is read ahead"
        results[number] = [first, *found], [str(error) for error in errors]
    (plain, told), (ahead, told_ahead) = results.values()
    assert told == told_ahead and "4.png" in told[0] and len(told) == 1
    assert [p.file_name for p, _ in ahead] == [str(file) for file in files if file.stem != "4"]
    for (one, image), (other, same) in zip(plain, ahead, strict=True):
        assert np.array_equal(image, same) and np.array_equal(one.scores, other.scores)
        assert np.array_equal(one.boxes, other.boxes) and len(one) == 1
    with pytest.raises(InputError, match=r"4\.png"):
        list(predictor.stream(files, num_workers=workers))


def test_tiles(run_folder: Path) -> None:
    image = np.full((120, 200, 3), 20, np.uint8)
    image[50:66, 90:106] = 220
    plain, tiled = (predict(run_folder, image, tile=tile, overlap=0.4)[0] for tile in (200, 64))
    assert len(plain) == len(tiled) == 1 and tiled.masks.sum() == pytest.approx(256, rel=0.2)
    assert tiled.boxes[0] == pytest.approx([90, 50, 106, 66], abs=0.5)
    assert plain.boxes[0] == pytest.approx([90, 50, 106, 66], abs=3.0)
    with pytest.raises(InputError, match="side of the tiles is 0"):
        predict(run_folder, image, tile=0)
    with pytest.raises(InputError, match=r"tiles needs test\.tile"):
        predict(run_folder, image, overlap=0.4)


def test_the_rest_goes_on(run_folder: Path, square: Path, caplog) -> None:
    broken = square.with_name("broken.png")
    broken.write_bytes(square.read_bytes()[:60])
    with caplog.at_level(logging.WARNING):
        given = [broken, square, "gone.png"]
        found = predict(run_folder, given, batch_size=2, skip_unreadable=True)
    assert [p.file_name for p in found] == [str(square)]
    assert [type(r.msg) for r in caplog.records].count(InputError) == 2
    assert "broken.png" in caplog.text and "Image file missing: gone.png" in caplog.text


def test_unreadable_files_are_errors_by_default(run_folder: Path, square: Path) -> None:
    with pytest.raises(InputError, match=r"missing: gone\.png \(1 of 2\).*skip_unreadable=True"):
        predict(run_folder, [square, "gone.png"])
    square.write_bytes(square.read_bytes()[:60])
    with pytest.raises(InputError, match=r"Image file unreadable: .*square\.png"):
        predict(run_folder, square)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16"])
def test_images_of_pillow(run_folder: Path, mode: str) -> None:
    image = Image.fromarray(square_image())
    gray = np.asarray(image)[..., 0].astype(np.uint16)
    given = Image.fromarray(gray * 257) if mode == "I;16" else image.convert(mode)
    (found,) = predict(run_folder, given)
    assert found.boxes[0] == pytest.approx(SQUARE, abs=1.5) and found.file_name == ""


def random_input(random: np.random.Generator) -> object:
    """Return something that may be an image."""
    sides = random.choice([0, 1, 2, 3, 4, 9, 40], size=random.integers(0, 5))
    dtype = random.choice(["uint8", "uint8", "uint16", "int64", "float32", "float64", "bool", "O"])
    array = np.asarray(random.random(sides) * random.choice([1, 255])).astype(str(dtype))
    if random.random() < 0.3:
        array = np.zeros((random.integers(1, 30), random.integers(1, 30), 3), np.uint8)
    made: list[Callable[[], object]] = [
        lambda: array,
        lambda: array[..., ::-1] if array.ndim else array,
        lambda: np.asfortranarray(array),
        lambda: torch.as_tensor(array.astype(np.uint8)),
        lambda: array.tolist(),
        lambda: Image.new(str(random.choice(["RGB", "L", "F", "LA", "CMYK"])), (7, 5)),
        lambda: random.choice([None, 5, 0.5, True, b"image", object, "", "no.png", "*", "a\0b"]),
    ]
    return made[random.integers(len(made))]()


def test_other_calls(run_folder: Path, square: Path) -> None:
    predictor = Predictor.load(run_folder / "config.yaml", weights(run_folder), device="cpu")
    image = Image.open(square)
    for given in (square, str(square), image, square_image(), square_image()[None], [image]):
        ((found, _),) = predictor.stream(given)
        assert found.scores == pytest.approx([BLUE])
    image.close()
    closed = Image.open(square)
    closed.close()
    for given in (closed, None, 5, b"image", torch.zeros(2, 3, 4)):
        with pytest.raises(InputError, match=r"^Image 0 is "):
            list(predictor.stream(given))
    for size in (0, None, 1.5, True):
        with pytest.raises(InputError, match="batch size is"):
            list(predictor.stream(square, batch_size=size))
    for number in (-1, 65, True, "2"):
        with pytest.raises(InputError, match="number of workers is"):
            predict(run_folder, square, num_workers=number)


def test_whatever_is_given(run_folder: Path) -> None:
    """As many predictions as images, or one sentence."""
    predictor = Predictor.load(run_folder / "config.yaml", weights(run_folder), device="cpu")
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        inputs = [random_input(random) for _ in range(random.integers(1, 3))]
        given = inputs[0] if random.random() < 0.3 else iter(inputs)
        try:
            found = predictor(given)
        except InputError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017
        else:
            assert len(found) == (len(inputs) if given is not inputs[0] else max(1, len(found)))
    assert 100 < refused < 190


def test_coco_files(run_folder: Path, square: Path, tmp_path: Path) -> None:
    other = tmp_path / "b" / "square.jpg"
    other.parent.mkdir()
    Image.fromarray(square_image()[:, ::-1]).save(other)
    out = tmp_path / "out"
    found = predict(run_folder, [square, other], output=str(out), score_threshold=0.2)
    coco = COCO(str(out / "images.json"))
    results = coco.loadRes(str(out / "predictions.json"))
    assert [r["file_name"] for r in coco.dataset["images"]] == [str(square), str(other)]
    assert [r["name"] for r in coco.loadCats([4, 9])] == ["nut", "bolt"]
    for number, prediction in enumerate(found, start=1):
        annotations = results.loadAnns(results.getAnnIds(imgIds=[number]))
        assert [a["category_id"] for a in annotations] == [9, 4]
        for annotation, box, mask in zip(
            annotations, prediction.boxes, prediction.masks, strict=True
        ):
            assert annotation["bbox"] == pytest.approx([*box[:2], *(box[2:] - box[:2])])
            assert np.array_equal(results.annToMask(annotation), mask)
    pictures = [record["picture"] for record in coco.dataset["images"]]
    assert pictures == ["pictures/square.png", "pictures/square_2.png"]
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == [
        "images.json",
        "predictions.json",
        "square.png",
        "square_2.png",
    ]


def test_pictures_show_boxes_and_masks(run_folder: Path, square: Path, tmp_path: Path) -> None:
    predict(run_folder, square, output=str(tmp_path / "out"))
    picture = Image.open(tmp_path / "out/pictures/square.png").convert("RGB")
    assert picture.size == (800, 533)
    pixels = np.asarray(picture.resize((48, 32), Image.Resampling.BOX)).astype(int)
    inside, outside = pixels[13, 16], pixels[28, 40]
    assert np.abs(outside - 20).max() <= 2
    blue = np.array([31, 119, 180])  # of the second class
    assert np.abs(inside - (0.55 * 220 + 0.45 * blue)).max() <= 6


def test_class_names_with_dollars_are_no_formulas(run_folder: Path, square: Path, tmp_path):
    names = tmp_path / "names.json"
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": r"$\frac{$"}]
    names.write_text(json.dumps({"categories": categories}))
    out = str(tmp_path / "out")
    (found,) = predict(run_folder, square, annotations=str(names), output=out)
    assert found.class_names == [r"$\frac{$"]


def test_names_when_the_data_are_gone(run_folder: Path, square: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.json").unlink()
    (found,) = predict(run_folder, square)
    assert found.class_names == ["class 1"] and found.category_ids == [2]
    saved = {"categories": [{"id": 7, "name": "screw"}, {"id": 3, "name": "nail"}]}
    (run_folder / "categories.json").write_text(json.dumps(saved))
    (found,) = predict(run_folder, square)
    assert found.class_names == ["screw"] and found.category_ids == [7]


def test_names_of_another_number_of_classes(
    run_folder: Path, square: Path, tmp_path: Path, caplog
) -> None:
    one = tmp_path / "one.json"
    one.write_text(json.dumps({"categories": [{"id": 1, "name": "a"}]}))
    with pytest.raises(InputError, match="has 1 categories, the model 2 classes"):
        predict(run_folder, square, annotations=str(one))
    one.rename(run_folder / "categories.json")
    with caplog.at_level(logging.WARNING):
        (found,) = predict(run_folder, square)
    assert found.class_names == ["bolt"]
    assert "categories.json has 1 classes, the model 2: its names are not used" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"categories": [1]}', ""])
def test_damaged_categories(run_folder: Path, square: Path, content: str, caplog) -> None:
    (run_folder / "categories.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        (found,) = predict(run_folder, square)
    assert found.class_names == ["bolt"] and "Its names are not used" in caplog.text
    (run_folder.parent / "truth.json").unlink()
    with caplog.at_level(logging.WARNING):
        (found,) = predict(run_folder, square)
    assert found.class_names == ["class 1"] and "names of the classes are not known" in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [("{", "not valid JSON"), ("[]", "has no categories"), ('{"categories": [1]}', "has no")],
)
def test_bad_annotations(run_folder: Path, square: Path, tmp_path, content, expected) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        predict(run_folder, square, annotations=str(tmp_path / "bad.json"))


def test_a_loaded_config_is_left_as_it_is(run_folder: Path, square: Path) -> None:
    cfg = LazyConfig.load(str(run_folder / "config.yaml"))
    options = {"score_threshold": 0.4, "device": "cpu"}
    (found,) = brloss_d2.predict(cfg, weights(run_folder), square, **options)
    assert len(found) == 2 and cfg.model.score_thresh == 0.5
    options["overrides"] = ["dataloader.test.mapper.image_format=RGB"]
    image = square_image()
    image[..., 0] //= 2
    (found,) = brloss_d2.predict(cfg, weights(run_folder), image, **options)
    assert found.scores[0] == pytest.approx(BLUE / 2)


def test_mistakes(run_folder: Path, square: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Checkpoint missing: .*gone\.pth"):
        brloss_d2.predict(run_folder / "config.yaml", run_folder / "gone.pth", square)
    with pytest.raises(InputError, match="The score threshold is 40: expected a number from 0"):
        predict(run_folder, square, score_threshold=40)
    with pytest.raises(InputError, match="batch size is 0"):
        predict(run_folder, square, batch_size=0)
    with pytest.raises(InputError, match="one or the other"):
        predict(run_folder, [square, square_image()])
    with pytest.raises(InputError, match=r"array \(4, 4\) of float64: expected \(H, W, 3\)"):
        Predictor.load(run_folder / "config.yaml", weights(run_folder))([np.zeros((4, 4))])
    with pytest.raises(InputError, match=r"no dataloader\.test\.mapper"):
        predict(run_folder, square, overrides=["dataloader.test.mapper=null"])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot create the folder"):
        predict(run_folder, square, output=str(tmp_path / "file"))


def test_a_checkpoint_of_another_model(run_folder: Path, square: Path) -> None:
    torch.save({"model": {"other": torch.zeros(1)}}, weights(run_folder))
    with pytest.raises(InputError, match="The checkpoint is of another model"):
        predict(run_folder, square)


def test_a_checkpoint_that_would_run_code(run_folder: Path, square: Path) -> None:
    torch.save({"model": {}, "extra": BrightSquares(2, 0.5)}, weights(run_folder))
    with pytest.raises(InputError, match="such objects can run code"):
        predict(run_folder, square)


def test_the_package_stays_light() -> None:
    with pytest.raises(AttributeError, match="no attribute 'predictt'"):
        _ = brloss_d2.predictt
    assert brloss_d2.model_zoo.get_config
