"""Frames of a video with boxes, masks, class names and scores, drawn in milliseconds."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import draw_segmentation_masks

from brloss_d2.plotting.figures import drawable
from brloss_d2.plotting.images import PALETTE

_MASK_ALPHA = 0.45
_LIGHT = (0.3, 0.6, 0.1)  # of red, green and blue
_BRIGHT = 150  # of 255


def draw_frame(
    frame: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray | None,
    class_names: Mapping[int, str],
) -> np.ndarray:
    """Return a copy of a frame with its detections; the pictures of images are more readable.

    Args:
        frame: image, (H, W, 3) uint8, RGB.
        boxes: boxes, (N, 4), XYXY in pixels.
        labels: classes, (N,), 0..K-1.
        scores: scores, (N,), 0..1.
        masks: masks, (N, H, W) bool; None for boxes alone.
        class_names: names of the classes.
    """
    if not len(boxes):
        return frame.copy()
    order = np.argsort(scores, kind="stable")  # the best object on top
    palette = [tuple(round(255 * x) for x in color) for color in PALETTE]
    colors = [palette[label % len(palette)] for label in labels[order].tolist()]
    if masks is not None:
        pixels = torch.from_numpy(frame.transpose(2, 0, 1).copy())
        shapes = torch.from_numpy(masks[order])
        pixels = draw_segmentation_masks(pixels, shapes, alpha=_MASK_ALPHA, colors=colors)
        frame = pixels.numpy().transpose(1, 2, 0)
    picture = Image.fromarray(frame)
    draw, side = ImageDraw.Draw(picture), min(picture.size)
    font = ImageFont.truetype(findfont("DejaVu Sans"), max(9, side // 36))
    for i, color in zip(order.tolist(), colors, strict=True):
        x0, y0, x1, y1 = boxes[i].tolist()
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=max(1, side // 240))
        text = f"{drawable(class_names[labels[i]], length=40)} {scores[i]:.2f}"
        height = draw.textbbox((0, 0), text, font=font)[3]
        place = x0, max(y0 - height, 0)
        draw.rectangle(draw.textbbox(place, text, font=font), fill=color)
        draw.text(
            place, text, fill="black" if np.dot(color, _LIGHT) > _BRIGHT else "white", font=font
        )
    return np.array(picture)
