"""Masks of regions as a view of the masks of the objects they are matched to."""

import torch
from detectron2.layers import ROIAlign
from detectron2.structures import BitMasks, PolygonMasks
from torch import Tensor


class IndexedMasks:
    """`masks[index]` that copies no mask before it is cropped.

    Without sampling an image has a thousand regions and detectron2 would copy a mask for each, to
    drop most of them unused. This stands in for the `gt_masks` of the regions.

    Args:
        masks: of the G objects of an image.
        index: (R,) the object of each region, int64.
    """

    def __init__(self, masks: BitMasks | PolygonMasks, index: Tensor):
        self.masks, self.index = masks, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: Tensor | slice) -> "IndexedMasks":
        return IndexedMasks(self.masks, self.index[item])

    def to(self, *args, **kwargs) -> "IndexedMasks":
        return IndexedMasks(self.masks.to(*args, **kwargs), self.index.to(*args, **kwargs))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """The mask of each region, cropped to its box.

        Args:
            boxes: (R, 4) XYXY in pixels.
            mask_size: side S of the result.

        Returns:
            (R, S, S) bool, as the method of detectron2's masks.
        """
        if not isinstance(self.masks, BitMasks):
            return self.masks[self.index].crop_and_resize(boxes, mask_size)
        bitmaps = self.masks.tensor.to(boxes.device, boxes.dtype)[:, None]
        regions = torch.cat([self.index[:, None].to(boxes), boxes], 1)
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        return align(bitmaps, regions).squeeze(1) >= 0.5
