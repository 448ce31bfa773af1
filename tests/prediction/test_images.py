"""What a path may mean."""

from pathlib import Path

import pytest

from brloss_d2.errors import InputError
from brloss_d2.prediction import find_images


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
