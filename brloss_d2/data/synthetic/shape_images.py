"""Images of colored shapes: circles, rectangles and triangles on a noisy background.

A detector has to learn outlines: color and texture say nothing about the class, sizes and
contrasts vary, and shapes overlap.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "rectangle", "triangle")

_EMPTY_FRACTION = 0.05  # share of images without shapes
_MAX_SHAPES = 8
_RADII = (0.09, 0.25)  # fraction of the shorter image side
_MAX_ROTATION = 0.2  # radians
_MAX_OVERLAP = 0.3  # fraction of the smaller of two boxes
_MIN_CONTRAST = 90.0  # distance of RGB colors, 0..255 each
_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Shape:
    """One object.

    Attributes:
        label: index of the class in `CLASSES`.
        polygon: x and y of the vertices in pixels, (V, 2).
    """

    label: int
    polygon: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """Bounding box of the polygon, (4,), XYXY in pixels."""
        return np.concatenate([self.polygon.min(axis=0), self.polygon.max(axis=0)])

    @property
    def area(self) -> float:
        """Area of the polygon in square pixels, by the shoelace formula."""
        x, y = self.polygon.T
        return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def draw_image(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, list[Shape]]:
    """Draw one image; equal generators give equal images.

    Args:
        rng: source of all random numbers.
        height: height of the image, pixels.
        width: width of the image, pixels.

    Returns:
        The image, (height, width, 3), uint8, RGB, and its shapes from back to front.
    """
    background = rng.uniform(40, 215, size=3)
    image = background + _smooth_noise(rng, height, width, amplitude=20.0)
    shapes = _place_shapes(rng, height, width)
    for shape in shapes:
        color = rng.uniform(20, 235, size=3)
        while np.linalg.norm(color - background) <= _MIN_CONTRAST:
            color = rng.uniform(20, 235, size=3)
        if rng.random() < 0.5:
            texture = _smooth_noise(rng, height, width, amplitude=12.0)
        else:  # stripes
            y, x = np.mgrid[:height, :width]
            direction, period = rng.uniform(0, np.pi), rng.uniform(4, 12)
            phase = (x * np.cos(direction) + y * np.sin(direction)) * 2 * np.pi / period
            texture = 12.0 * np.sin(phase)[..., None]
        # The fraction of each pixel that the polygon covers.
        large = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
        ImageDraw.Draw(large).polygon([tuple(p) for p in shape.polygon * _SUPERSAMPLING], fill=255)
        alpha = np.asarray(large.resize((width, height), Image.Resampling.BOX))[..., None] / 255.0
        image = (1 - alpha) * image + alpha * (color + texture)
    image += rng.normal(scale=rng.uniform(2, 8), size=image.shape)
    return image.clip(0, 255).round().astype(np.uint8), shapes


def _place_shapes(rng: np.random.Generator, height: int, width: int) -> list[Shape]:
    if rng.random() < _EMPTY_FRACTION:
        return []
    shapes: list[Shape] = []
    # Each candidate has one try: crowded images end up with fewer shapes.
    for _ in range(rng.integers(1, _MAX_SHAPES + 1)):
        candidate = _random_shape(rng, height, width)
        a = candidate.box
        for b in (other.box for other in shapes):
            sides = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(min=0)
            smaller = min((a[2:] - a[:2]).prod(), (b[2:] - b[:2]).prod())
            if sides.prod() / smaller >= _MAX_OVERLAP:
                break
        else:
            shapes.append(candidate)
    return shapes


def _random_shape(rng: np.random.Generator, height: int, width: int) -> Shape:
    label = int(rng.integers(len(CLASSES)))
    if CLASSES[label] == "circle":
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    elif CLASSES[label] == "rectangle":
        half = np.arctan(rng.uniform(0.5, 1.0))  # angle of the diagonal: aspect 1:2 to 1:1
        angles = np.array([half, np.pi - half, np.pi + half, -half])
    else:
        angles = np.array([-3, 1, 5]) * np.pi / 6 + rng.uniform(-0.15, 0.15, size=3)
    # Uniform in the logarithm, so that small and large shapes are equally frequent.
    radius = min(height, width) * np.exp(rng.uniform(*np.log(_RADII)))
    turn = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    polygon = rotation @ (radius * np.stack([np.cos(angles), np.sin(angles)]))
    low, high = -polygon.min(axis=1), np.array([width, height]) - polygon.max(axis=1)
    return Shape(label, (polygon.T + rng.uniform(low, high)).round(2))


def _smooth_noise(
    rng: np.random.Generator, height: int, width: int, *, amplitude: float
) -> np.ndarray:
    """Return clouds of a random size, (height, width, 3), within -amplitude..amplitude."""
    cells = int(rng.integers(2, 9))
    coarse = rng.uniform(-amplitude, amplitude, size=(3, cells, cells)).astype(np.float32)
    planes = (Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in coarse)
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
