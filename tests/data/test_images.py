"""One reader for images of all kinds."""

import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read
from PIL import Image

from brloss_d2.data import read_image
from brloss_d2.errors import InputError


@pytest.fixture
def colors() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(
    tmp_path: Path, colors: Image.Image, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    colors.save(tmp_path / f"a.{suffix}", exif=exif)
    colors.save(tmp_path / "b.png", exif=exif)
    found = read_image(tmp_path / f"a.{suffix}")
    assert found.shape == ((7, 5, 3) if orientation > 4 else (5, 7, 3))
    # detectron2 turns TIFF twice.
    assert np.array_equal(found, detectron2_read(str(tmp_path / "b.png"), format="RGB"))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("L", "jpg"),
        ("LA", "png"),
        ("P", "gif"),
        ("RGB", "jpg"),
        ("RGBA", "png"),
        ("CMYK", "tif"),
        ("CMYK", "jpg"),
    ],
)
def test_modes(tmp_path: Path, colors: Image.Image, mode: str, suffix: str) -> None:
    file = str(tmp_path / f"a.{suffix}")
    colors.convert(mode).save(file)
    found = read_image(file)
    assert found.shape == (5, 7, 3) and found.dtype == np.uint8
    for image_format in ("RGB", "BGR", "L"):
        expected = detectron2_read(file, format=image_format)
        assert np.array_equal(read_image(file, image_format), expected)


@pytest.mark.parametrize(("dtype", "suffix"), [("uint16", "png"), (">u2", "tif"), ("int32", "tif")])
def test_sixteen_bits_are_scaled(tmp_path: Path, dtype: str, suffix: str) -> None:
    deep = (np.arange(35).reshape(5, 7) * 1927).astype(dtype)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    found = read_image(str(tmp_path / f"a.{suffix}"))
    assert np.array_equal(found[..., 0], np.round(deep.astype(float) / 257).astype(np.uint8))
    assert found.max() == 255 and len(np.unique(found)) == 35


def test_unknown_ranges_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    for pixels in (np.ones((4, 4), np.float32), np.full((4, 4), 65536, np.int32)):
        Image.fromarray(pixels).save(file)
        with pytest.raises(InputError, match=r"a\.tif: its pixels are numbers from"):
            read_image(str(file))


def test_broken_files(tmp_path: Path, colors: Image.Image) -> None:
    file = tmp_path / "a.png"
    with pytest.raises(InputError, match=r"Image file missing: .*a\.png"):
        read_image(str(file))
    colors.resize((70, 50)).save(file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"Image file unreadable: .*a\.png"):
        read_image(str(file))


@pytest.mark.parametrize(
    ("kind", "expected"), [("WEBP", "damaged near its start, or cut off"), ("TIFF", "-2")]
)
def test_damage_is_told_once(
    tmp_path: Path, colors: Image.Image, capfd: pytest.CaptureFixture, kind: str, expected: str
) -> None:
    file = tmp_path / "a.image"
    colors.resize((70, 50)).save(file, kind, compression="tiff_lzw")
    content = file.read_bytes()
    file.write_bytes(content[:100] if kind == "WEBP" else content[:200] + bytes(50) + content[250:])
    with pytest.raises(InputError, match=expected):
        read_image(file)
    assert capfd.readouterr().err == ""


def make_folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (make_folder, "is a folder, not a file"),
        (os.mkfifo, "is a pipe, socket or device, not a file"),
        (lambda file: file.symlink_to(file), "Too many levels of symbolic links"),
        (lambda file: file.symlink_to("nowhere"), "a link to a file that does not exist"),
        (lambda file: file.write_bytes(b""), "it is empty"),
        (lambda file: file.write_text("\n<html>404</html>"), "a web page"),
        (
            lambda file: file.write_text("version https://git-lfs.github.com/spec/v1"),
            "git lfs pull",
        ),
        (lambda file: file.write_bytes(bytes(99)), "zeros"),
        (lambda file: file.write_bytes(bytes(128) + b"DICM"), "DICOM: convert"),
        (lambda file: file.write_bytes(b"\0\0\0\x18ftypheic"), "HEIC, .*: convert"),
        (lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "damaged near its start"),
        (lambda file: file.write_text("no image"), "does not read"),
        (lambda file: Image.new("L", (1010, 10)).save(file), "1010 x 10 pixels are a strip"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, make, expected: str) -> None:
    make(tmp_path / "a\x1bb.png")
    with pytest.raises(InputError, match=expected) as error:
        read_image(tmp_path / "a\x1bb.png")
    assert r"a\x1bb.png" in str(error.value)


def test_too_many_pixels(tmp_path: Path, colors: Image.Image, monkeypatch) -> None:
    """A small file may unpack to gigabytes: Pillow refuses."""
    colors.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="DecompressionBomb"):
        read_image(str(tmp_path / "a.png"))
