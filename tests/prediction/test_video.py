"""Videos: frames in, annotated video and JSON lines out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brloss_d2.cli.predict import main
from brloss_d2.errors import InputError
from brloss_d2.prediction import Predictor
from brloss_d2.prediction.video import _frames, is_video, predict_video
from tests.helpers.bright_squares import square_image

cv2 = pytest.importorskip("cv2")
COUNT = 7


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Seven frames, 10 per second; the square moves by 2 pixels, and is gone in the last frame."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (48, 32))
    for number in range(COUNT):
        image = np.roll(square_image(), 2 * number, axis=1)
        writer.write(image if number < COUNT - 1 else np.full_like(image, 20))
    writer.release()
    return path


@pytest.fixture
def predictor(run_folder: Path) -> Predictor:
    return Predictor.load(run_folder / "config.yaml", run_folder / "model_final.pth", device="cpu")


def read_frames(path: Path) -> list[np.ndarray]:
    return list(_frames(cv2.VideoCapture(str(path)), None))


def test_frames_become_lines_and_pictures(predictor: Predictor, clip: Path, tmp_path: Path):
    out = tmp_path / "out"
    done = predict_video(predictor, str(clip), str(out), batch_size=3)
    assert (done.frames, done.announced, done.objects) == (COUNT, COUNT, COUNT - 1)
    assert predictor.model.batch_sizes == [3, 3, 1] and done.seconds > 0
    assert sorted(p.name for p in out.iterdir()) == ["clip.jsonl", "clip.mp4"]
    assert list(map(Path, done.files)) == [out / "clip.jsonl", out / "clip.mp4"]
    lines = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["seconds"]) for line in lines[::3]] == [(0, 0), (3, 0.3), (6, 0.6)]
    (second,) = lines[1]["objects"]
    assert (second["category_id"], second["name"]) == (9, "bolt")
    assert second["bbox"] == pytest.approx([10, 4, 16, 16], abs=1.5)
    assert second["segmentation"]["size"] == [32, 48] and lines[-1]["objects"] == []
    drawn, given = read_frames(out / "clip.mp4"), read_frames(clip)
    assert len(drawn) == COUNT and drawn[0].shape == (32, 48, 3)
    differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(drawn, given, strict=True)]
    assert min(differences[:-1]) > 5 > differences[-1]


def test_the_program(run_folder: Path, clip: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    arguments = [
        *("--device", "cpu", "--config-file", str(run_folder / "config.yaml")),
        *("--weights", str(run_folder / "model_final.pth"), "--output", str(out)),
    ]
    options = ["--max-frames", "4", "--no-pictures"]
    assert main([*arguments, *options, "--input", str(clip)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("4 objects in 4 frames, ") and not printed.err
    assert printed.out.endswith(f" frames per second: {out}/clip.jsonl\n")
    assert [p.name for p in out.iterdir()] == ["clip.jsonl"]
    assert main([*arguments, "--input", str(clip), str(clip)]) == 1
    assert "a video is read alone" in capsys.readouterr().err


def test_the_input_is_never_replaced(
    predictor: Predictor, clip: Path, run_folder: Path, tmp_path: Path, capsys
) -> None:
    content = clip.read_bytes()
    (tmp_path / "other").mkdir()
    for source in (clip, tmp_path / "other" / ".." / "clip.mp4"):
        with pytest.raises(InputError, match="would be replaced by the annotated video"):
            predict_video(predictor, str(source), str(tmp_path))
    assert clip.read_bytes() == content
    picture = tmp_path / "pictures" / "a.png"
    picture.parent.mkdir()
    Image.fromarray(square_image()).save(picture)
    content = picture.read_bytes()
    model = ["--config-file", str(run_folder / "config.yaml"), "--device", "cpu"]
    model += ["--weights", str(run_folder / "model_final.pth")]
    assert main([*model, "--input", str(picture), "--output", str(tmp_path)]) == 1
    assert "would be replaced by its annotated copy" in capsys.readouterr().err
    assert picture.read_bytes() == content


def test_what_cannot_be_read(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"^Video missing: gone\.mp4\.$"):
        predict_video(predictor, "gone.mp4", str(out))
    clip.write_bytes(clip.read_bytes()[:200])
    with pytest.raises(InputError, match=r"OpenCV cannot open the video: .*clip\.mp4\. Expected"):
        predict_video(predictor, str(clip), str(out))
    with pytest.raises(InputError, match="no camera with the number 97"):
        predict_video(predictor, "97", str(out))
    for number in ("9" * 10, "9" * 20, "9" * 5000):
        with pytest.raises(InputError, match="There is no camera with the number 99999") as error:
            predict_video(predictor, number, str(out))
        assert len(str(error.value)) < 90
    assert list(out.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Cannot write to .*file"):
        predict_video(predictor, str(clip), str(tmp_path / "file"))


def test_ctrl_c_ends_the_video_and_keeps_it(predictor: Predictor, clip: Path, monkeypatch) -> None:
    class Interrupted:
        left = 2

        def read(self) -> tuple[bool, np.ndarray]:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return True, square_image()

    assert len(list(_frames(Interrupted(), None))) == 2


def test_what_is_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(map(is_video, ("0", "a.MP4", "rtsp://camera/1", "b/c.webm")))
    assert not any(map(is_video, ("a.jpg", "folder/", "*.png", "mp4", "-1")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    assert not is_video("0")  # a folder of images
