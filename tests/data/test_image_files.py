"""Images are read through before training."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brloss_d2.data import image_files, read_image
from brloss_d2.data.image_files import content_keys, image_notes, look_at_images
from brloss_d2.errors import InputError

SIZE = (40, 30)


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(file: Path, image: Image.Image | None = None, **more) -> str:
    (noise() if image is None else image).save(file, **more)
    return str(file)


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "gif", "webp", "ppm"])
def test_cut_off_and_whole_files(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"a.{suffix}")
    assert look_at_images({whole: SIZE})[whole][2:4] == SIZE
    content = Path(whole).read_bytes()
    for name, share in (("b", 0.9), ("c", 0.3)):
        cut = tmp_path / f"{name}.{suffix}"
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError) as error:
            look_at_images({whole: SIZE, str(cut): SIZE}, key="data.val")
        assert "1 of the 2 images of data.val cannot be used" in str(error.value)
        assert f"Image file unreadable: {cut}" in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_size_is_that_of_the_reader(tmp_path: Path, suffix: str, orientation: int) -> None:
    file = save(tmp_path / f"a.{suffix}", exif=tagged(orientation))
    height, width = read_image(file).shape[:2]
    facts = look_at_images({file: (width, height)})
    assert image_notes(facts) == (
        ["1 of 1 images are turned by an EXIF tag: boxes have to fit what viewers show"]
        if orientation == 3
        else []
    )
    with pytest.raises(InputError, match="disagree about the size") as error:
        look_at_images({file: (height, width)})
    assert "They are exchanged" in str(error.value)


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    file = Path(save(tmp_path / "a.png", exif=tagged(6)))
    content = file.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    chunk, rest = content[start:end], content[:start] + content[end:]
    file.write_bytes(rest[:-12] + chunk + rest[-12:])
    look_at_images({str(file): SIZE[::-1]})
    assert read_image(file).shape[:2] == SIZE


def test_copies_have_the_same_content_throughout(tmp_path: Path) -> None:
    pixels = np.zeros((600, 400, 3), np.uint8)
    files = {}
    for name, level in (("a", 1), ("b", 2), ("c", 1)):
        pixels[300] = level
        files[save(tmp_path / f"{name}.bmp", Image.fromarray(pixels))] = (400, 600)
    one, other, copy = content_keys(look_at_images(files)).values()
    assert one == copy != other


def mutant(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content cut off, with a changed byte, with bytes left out or with more bytes."""
    start = int(rng.integers(1, len(content)))
    more = rng.integers(0, 256, 9, dtype=np.uint8).tobytes()
    kinds = (
        content[:start],
        content[:-2],
        content[:start] + more[:1] + content[start + 1 :],
        content[:start] + content[start + 7 :],
        content[:start] + more + content[start:],
        content + more,
    )
    return kinds[rng.integers(len(kinds))]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp"])
def test_what_the_reader_reads_is_accepted_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    good = Path(save(tmp_path / f"a.{suffix}")).read_bytes()
    file = tmp_path / f"b.{suffix}"
    readable = 0
    for _ in range(60):
        file.write_bytes(mutant(good, rng))
        try:
            size = read_image(file).shape[1::-1]
        except InputError:
            with pytest.raises(InputError):
                look_at_images({str(file): SIZE})
        else:
            look_at_images({str(file): size})
            readable += 1
    assert 0 < readable < 60


def test_every_offender_is_counted_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").mkdir()
    save(tmp_path / "2.png", Image.fromarray(np.ones((30, 40), np.float32)).convert("L"))
    save(tmp_path / "3.tif", Image.fromarray(np.ones((30, 40), np.float32)))
    save(tmp_path / "4.png", Image.new("L", (1, 1)))
    save(tmp_path / "5.png", Image.new("L", (1, 200)))
    files = [tmp_path / name for name in ("0.jpg", "1.jpg", "2.png", "3.tif", "4.png", "5.png")]
    sizes = dict(zip(map(str, files), [SIZE] * 4 + [(1, 1), (1, 200)], strict=True))
    with pytest.raises(InputError) as error:
        look_at_images(sizes)
    lines = str(error.value).splitlines()
    assert lines[0] == "4 of the 6 images of data.train cannot be used:"
    assert all(
        text in line
        for text, line in zip(("pipe", "folder", "numbers", "strip"), lines[1:], strict=False)
    )


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="DecompressionBomb"):
        look_at_images({file: SIZE})


def half_transparent() -> Image.Image:
    image = noise("RGBA")
    image.putpixel((0, 0), (1, 2, 3, 0))
    return image


def deep(highest: int) -> Image.Image:
    return Image.fromarray(np.linspace(0, highest, 1200).reshape(30, 40).astype(np.uint16))


@pytest.mark.parametrize(
    ("name", "image", "more", "expected"),
    [
        ("a.png", noise("RGBA"), {}, None),
        ("a.png", half_transparent(), {}, "transparent"),
        ("a.png", noise("P"), {"transparency": 0}, "transparent"),
        ("a.png", deep(65535), {}, None),
        ("a.png", deep(4095), {}, "nearly black"),
        ("a.tif", deep(1023), {}, "nearly black"),
        ("a.gif", noise("P"), {"save_all": True, "append_images": [noise("L")]}, "stacks"),
        ("a.tif", noise(), {"save_all": True, "append_images": [noise("L")]}, "stacks"),
        ("a.jpg", noise("CMYK"), {}, None),
    ],
)
def test_notes(tmp_path: Path, name: str, image: Image.Image, more: dict, expected) -> None:
    file = save(tmp_path / name, image, **more)
    notes = image_notes(look_at_images({file: SIZE}))
    assert [expected in note for note in notes] == [True] if expected else not notes


def test_same_content_under_another_name(tmp_path: Path) -> None:
    first, copy, other = (str(tmp_path / f"{name}.bmp") for name in "abc")
    for file in (first, copy):
        save(Path(file))
    save(Path(other), Image.new("RGB", SIZE))  # as large as the others
    keys = content_keys(look_at_images(dict.fromkeys((first, copy, other), SIZE)))
    assert keys[first] == keys[copy] != keys[other]


def test_large_sets_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_CACHED", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes = {save(tmp_path / name): SIZE for name in ("a.png", "b.jpg")}
    facts = look_at_images(sizes)
    read = []
    read_through = image_files._read_through

    def counted(image: Image.Image, *stamp: int) -> image_files.ImageFacts:
        read.append(Path(image.filename).name)
        return read_through(image, *stamp)

    monkeypatch.setattr(image_files, "_read_through", counted)
    assert look_at_images(sizes) == facts and read == []
    save(tmp_path / "a.png", Image.new("L", SIZE))
    look_at_images(sizes)
    assert read == ["a.png"]
    (cache,) = (tmp_path / "cache" / "brloss_d2").iterdir()
    cache.write_text("[1")
    look_at_images(sizes)
    assert sorted(read) == ["a.png", "a.png", "b.jpg"]
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"Image file missing: .*b\.jpg"):
        look_at_images(sizes)
