"""Images of all kinds, and what a path may mean."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.prediction import find_images, read_rgb


@pytest.fixture
def colors() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_as_in_training(tmp_path: Path, colors: Image.Image, orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    colors.save(tmp_path / "a.png", exif=exif)
    found = read_rgb(str(tmp_path / "a.png"))
    assert found.shape == ((7, 5, 3) if orientation > 4 else (5, 7, 3))
    assert np.array_equal(found, read_image(str(tmp_path / "a.png"), format="RGB"))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "png"), ("LA", "png"), ("P", "gif"), ("RGBA", "png"), ("CMYK", "tif")],
)
def test_modes(tmp_path: Path, colors: Image.Image, mode: str, suffix: str) -> None:
    file = str(tmp_path / f"a.{suffix}")
    colors.convert(mode).save(file)
    found = read_rgb(file)
    assert found.shape == (5, 7, 3) and found.dtype == np.uint8
    assert np.array_equal(found, read_image(file, format="RGB"))


@pytest.mark.parametrize(("dtype", "suffix"), [("uint16", "png"), (">u2", "tif"), ("int32", "tif")])
def test_sixteen_bits_are_scaled(tmp_path: Path, dtype: str, suffix: str) -> None:
    deep = (np.arange(35).reshape(5, 7) * 1927).astype(dtype)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    found = read_rgb(str(tmp_path / f"a.{suffix}"))
    assert np.array_equal(found[..., 0], np.round(deep.astype(float) / 257).astype(np.uint8))
    assert found.max() == 255 and len(np.unique(found)) == 35


def test_unknown_ranges_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    for pixels in (np.ones((4, 4), np.float32), np.full((4, 4), 65536, np.int32)):
        Image.fromarray(pixels).save(file)
        with pytest.raises(InputError, match=r"a\.tif: its pixels are numbers from"):
            read_rgb(str(file))


def test_broken_files(tmp_path: Path, colors: Image.Image) -> None:
    file = tmp_path / "a.png"
    with pytest.raises(InputError, match=r"Image file missing: .*a\.png"):
        read_rgb(str(file))
    colors.resize((70, 50)).save(file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"Image file unreadable: .*a\.png"):
        read_rgb(str(file))
    file.write_text("no image")
    with pytest.raises(InputError, match=r"Image file unreadable: .*a\.png"):
        read_rgb(str(file))


def test_too_many_pixels(tmp_path: Path, colors: Image.Image, monkeypatch) -> None:
    """A small file may unpack to gigabytes: Pillow refuses."""
    colors.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="DecompressionBomb"):
        read_rgb(str(tmp_path / "a.png"))


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c.png", "a.JPG", "notes.txt", "b/d.webp", "[x].png"):
        (tmp_path / name).touch()

    def found(*inputs: str) -> list[str]:
        files = find_images(tmp_path / path for path in inputs)
        return [str(Path(file).relative_to(tmp_path)) for file in files]

    assert found("") == ["[x].png", "a.JPG", "b/d.webp", "c.png"]
    assert found("c.png", "") == ["c.png", "[x].png", "a.JPG", "b/d.webp"]
    assert found("*.png") == ["[x].png", "c.png"]
    assert found("**/d.*", "notes.txt", "gone.png") == ["b/d.webp", "notes.txt", "gone.png"]
    assert found("[x].png") == ["[x].png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no images in the folder .*empty"):
        found("empty")
    with pytest.raises(InputError, match="No file matches the pattern"):
        found("*.bmp")
    with pytest.raises(InputError, match="No images given"):
        found()
