"""Masks of COCO files, checked before C code reads them.

pycocotools trusts its input: runs that do not add up to the image make it write beyond its memory,
and a polygon of two points is a box to it.
"""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from brloss_d2.data.fields import is_number
from brloss_d2.utils.text import printable

_MOST_PIXELS = 2**32  # pycocotools counts them in 32 bits
_CODE_BITS = 5  # of a run in each character of compressed RLE
_LONGEST_CODE = 7  # characters of a run below 2^32


class MaskError(ValueError):
    """Why a `segmentation` is no mask, in a few words."""


def normalized_mask(segmentation: Any, height: int, width: int) -> Any:
    """Return a `segmentation` as all readers of COCO masks understand it.

    Args:
        segmentation: polygons, one polygon or RLE, as the JSON file has it.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Returns:
        A list of polygons, each of at least 3 points, or compressed RLE with text as `counts`;
        None if the value is missing or an empty list, as tools for boxes write it.

    Raises:
        MaskError: the value is no mask of this image.
    """
    if segmentation is None or segmentation == []:
        return None
    if height * width >= _MOST_PIXELS:
        raise MaskError(f"{width} x {height} pixels are too many for a mask")
    if isinstance(segmentation, dict):
        runs = _runs(segmentation, height, width)
        coded = mask_util.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return {"size": [height, width], "counts": coded["counts"].decode("ascii")}
    if not isinstance(segmentation, list):
        raise MaskError(f"{type(segmentation).__name__} is neither polygons nor RLE")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    if len(polygons) > 2 and all(isinstance(p, list) and len(p) == 2 for p in polygons):
        raise MaskError("a list of points, expected polygons [[x, y, x, y, ...]]")
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(map(is_number, polygon)):
            raise MaskError("a polygon is no list of finite numbers")
        if len(polygon) % 2:
            raise MaskError(f"a polygon of {len(polygon)} numbers, which are no pairs")
        # The time and memory of pycocotools grow with the length of the outline.
        points = np.array(polygon, float).reshape(-1, 2) / (width, height)
        if ((points < -1) | (points > 2)).any():
            raise MaskError("a polygon far outside of the image")
    kept = [polygon for polygon in polygons if len(polygon) >= 6]  # the others cover nothing
    if not kept:
        raise MaskError("no polygon has 3 points")
    return kept


def to_rle(mask: Any, height: int, width: int) -> dict[str, Any]:
    """Return a mask as compressed RLE.

    Args:
        mask: result of `normalized_mask`, not None, or RLE that is not compressed.
        height: height of the image in pixels.
        width: width of the image in pixels.
    """
    if isinstance(mask, list):
        return mask_util.merge(mask_util.frPyObjects(mask, height, width))
    return mask_util.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask


def count_pixels(mask: Any, height: int, width: int) -> int:
    """Return the number of pixels of a mask.

    Args:
        mask: result of `normalized_mask`, not None.
        height: height of the image in pixels.
        width: width of the image in pixels.
    """
    return int(mask_util.area(to_rle(mask, height, width)))


def mask_box(mask: Any) -> list[float]:
    """Return the box around a mask, XYWH, in pixels or the unit of its polygons.

    Args:
        mask: polygons, each of x and y of the corners in turn, or compressed RLE.
    """
    if isinstance(mask, dict):
        return mask_util.toBbox(mask).tolist()
    x0, y0 = (min(min(polygon[axis::2]) for polygon in mask) for axis in (0, 1))
    x1, y1 = (max(max(polygon[axis::2]) for polygon in mask) for axis in (0, 1))
    return [x0, y0, x1 - x0, y1 - y0]


def _runs(rle: dict[str, Any], height: int, width: int) -> list[int]:
    """Return the lengths of the runs of RLE, which add up to the image."""
    if rle.get("size") != [height, width]:
        raise MaskError(
            f"RLE of size {printable(rle.get('size'), length=40)} for an image of [height, width] "
            f"[{height}, {width}]"
        )
    counts = rle.get("counts")
    if isinstance(counts, str):
        runs = _decoded(counts)
    elif isinstance(counts, list) and all(is_number(run) and run == int(run) for run in counts):
        runs = np.array(counts, np.int64)
    else:
        raise MaskError("RLE counts are neither text nor a list of integers")
    if (runs < 0).any():
        raise MaskError("RLE with a negative run")
    if (runs > height * width).any() or runs.sum() != height * width:
        raise MaskError(f"RLE counts add up to {runs.sum()} of {height * width} pixels")
    if (runs[1:] == 0).any():  # pycocotools stops at runs of nothing
        values = np.arange(len(runs)) % 2
        values, runs = values[runs > 0], runs[runs > 0]
        starts = np.flatnonzero(np.diff(values, prepend=-1))
        runs = np.add.reduceat(runs, starts)
        runs = np.concatenate([[0], runs]) if values[0] else runs
    return runs.tolist()


def _decoded(text: str) -> np.ndarray:
    """Decode the runs of compressed RLE: 6 bits per character, differences from the third on."""
    codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)  # the sixth bit says that more characters follow
    if not (codes.size and codes.min() >= 0 and codes.max() < 64 and codes[-1] < 32):
        raise MaskError("RLE counts are damaged text")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_CODE:
        raise MaskError("RLE counts are damaged text")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << _CODE_BITS * place, starts)
    runs -= (codes[ends] & 16 > 0) * (1 << _CODE_BITS * lengths)  # the sign of the last character
    for first in (1, 2):
        runs[first::2] = runs[first::2].cumsum()
    return runs
