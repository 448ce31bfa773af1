"""Detection in videos and streams, frame by frame, through OpenCV."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from brloss_d2.errors import InputError
from brloss_d2.prediction.predictor import Predictor
from brloss_d2.prediction.results import Prediction
from brloss_d2.utils.files import check_not_input
from brloss_d2.utils.text import printable

SUFFIXES = (*(".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"),)
_FRAME_RATES = (1.0, 240.0)  # others are taken for unknown
_UNKNOWN_RATE = 25.0
_MOST_DIGITS = 9  # of the number of a camera, which OpenCV keeps in 32 bits


@dataclass(frozen=True)
class VideoSummary:
    """What was done with a video.

    Attributes:
        frames: number of frames.
        announced: number of frames that the file claims to have; 0 if it is unknown.
        objects: number of detections in all frames.
        seconds: time that it took, reading and writing included.
        files: files that were written.
    """

    frames: int
    announced: int
    objects: int
    seconds: float
    files: tuple[str, ...]


def is_video(source: str) -> bool:
    """Say whether an input is a video: a file by its suffix, a URL, or the number of a camera."""
    return _is_camera(source) or "://" in source or source.lower().endswith(SUFFIXES)


def predict_video(
    predictor: Predictor,
    source: str,
    output: str,
    *,
    batch_size: int = 1,
    max_frames: int | None = None,
    pictures: bool = True,
) -> VideoSummary:
    """Detect objects in each frame; write `<name>.jsonl` and, with boxes and masks, `<name>.mp4`.

    A line of the first file is the object of a frame: its number `frame`, `seconds` from the start,
    and `objects` in COCO's results format with a `name` each. Both files appear when the video has
    ended; Ctrl-C ends it.

    Args:
        predictor: detector.
        source: file, URL of a stream, or number of a camera, as text.
        output: folder, created if necessary.
        batch_size: number of frames per batch.
        max_frames: number of frames after which the video ends; None reads all.
        pictures: whether to draw.

    Raises:
        InputError: the video cannot be opened or has no frame, or the folder cannot be written to.
    """
    start, name = time.perf_counter(), _name(source)
    for target in (f"{name}.mp4", f"{name}.jsonl"):
        check_not_input(os.path.join(output, target), source, "the annotated video")
    try:
        os.makedirs(output, exist_ok=True)
        with _opened(source) as video, tempfile.TemporaryDirectory(dir=output) as folder:
            import cv2

            path, rate = os.path.join(folder, name), float(video.get(cv2.CAP_PROP_FPS))
            rate = rate if _FRAME_RATES[0] <= rate <= _FRAME_RATES[1] else _UNKNOWN_RATE
            frames, objects = 0, 0
            with (
                open(f"{path}.jsonl", "w", encoding="utf-8") as lines,
                closing(_Film(f"{path}.mp4", rate)) as film,
            ):
                all_frames = _frames(video, max_frames)
                while batch := list(islice(all_frames, batch_size)):
                    for found, frame in zip(predictor(batch), batch, strict=True):
                        lines.write(_line(found, frames, rate))
                        if pictures:
                            film.add(found, frame)
                        frames, objects = frames + 1, objects + len(found)
            if not frames:
                raise InputError(f"The video {printable(source)} has no frame that can be read.")
            files = tuple(os.path.join(output, file) for file in sorted(os.listdir(folder)))
            for file in files:
                os.replace(os.path.join(folder, os.path.basename(file)), file)
            announced = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    except OSError as error:
        raise InputError(f"Cannot write to {printable(output)}: {error.strerror}.") from error
    return VideoSummary(frames, announced, objects, time.perf_counter() - start, files)


class _Film:
    """Video file of annotated frames, which begins with the first one."""

    def __init__(self, path: str, rate: float):
        self.path, self.rate = path, rate
        self.writer: Any = None

    def add(self, found: Prediction, frame: np.ndarray) -> None:
        import cv2

        from brloss_d2.plotting.frames import draw_frame

        if self.writer is None:
            size = frame.shape[1], frame.shape[0]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self.writer = cv2.VideoWriter(self.path, code, self.rate, size)
            if not self.writer.isOpened():
                raise InputError(
                    "OpenCV cannot write mp4 files here: --no-pictures writes JSON lines only."
                )
        names = dict(zip(found.labels.tolist(), found.class_names, strict=True))
        drawn = draw_frame(frame, found.boxes, found.labels, found.scores, found.masks, names)
        self.writer.write(np.ascontiguousarray(drawn[..., ::-1]))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.release()


def _is_camera(source: str) -> bool:
    return source.isdecimal() and not os.path.exists(source)


@contextmanager
def _opened(source: str) -> Iterator[Any]:
    """Open a video; OpenCV and FFmpeg keep silent about what they cannot read."""
    is_camera = _is_camera(source)
    if not is_camera and "://" not in source and not os.path.isfile(source):
        raise InputError(f"Video missing: {printable(source)}.")
    if is_camera and len(source) > _MOST_DIGITS:
        raise InputError(f"There is no camera with the number {printable(source, length=40)}.")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    video = cv2.VideoCapture(int(source) if is_camera else source)
    try:
        if not video.isOpened():
            what = f"no camera with the number {source}" if is_camera else printable(source)
            raise InputError(
                f"OpenCV cannot open the video: {what}. Expected a video file, the URL of a "
                "stream, or the number of a camera."
            )
        yield video
    finally:
        video.release()


def _frames(video: Any, most: int | None) -> Iterator[np.ndarray]:
    """Yield the frames as (H, W, 3) uint8, RGB, until the end or Ctrl-C."""
    try:
        for _ in range(most) if most is not None else iter(int, 1):
            is_read, frame = video.read()
            if not is_read:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    except KeyboardInterrupt:
        return


def _line(found: Prediction, number: int, rate: float) -> str:
    """Return the line of a frame."""
    objects: Sequence[dict[str, Any]] = found.to_coco(number)
    for detection, name in zip(objects, found.class_names, strict=True):
        del detection["image_id"]
        detection["name"] = name
    content = {"frame": number, "seconds": round(number / rate, 3), "objects": objects}
    return json.dumps(content, ensure_ascii=False) + "\n"


def _name(source: str) -> str:
    """Return the name of the output files: that of a file, or one for a stream."""
    if source.isdecimal():
        return f"camera_{source}"
    name = os.path.splitext(os.path.basename(source.partition("?")[0].rstrip("/")))[0]
    return name or "stream"
