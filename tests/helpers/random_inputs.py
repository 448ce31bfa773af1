"""Batches of random images with random objects, in the format of detectron2's models."""

import torch
from detectron2.structures import Boxes, Instances


def random_inputs(
    *objects: int,
    num_classes: int,
    seed: int = 0,
    largest: float = 50.0,
    size: tuple[int, int] = (96, 128),
) -> list[dict]:
    """Draw a batch.

    Args:
        objects: number of objects of each image.
        num_classes: number of classes.
        seed: seed of the random numbers.
        largest: largest side of an object in pixels; the smallest is 0.4 times as long.
        size: (height, width) of the images in pixels.

    Returns:
        One dict per image.
    """
    g = torch.Generator().manual_seed(seed)
    batch = []
    for count in objects:
        xy = torch.rand(count, 2, generator=g) * 40
        sides = (0.4 + 0.6 * torch.rand(count, 2, generator=g)) * largest
        instances = Instances(size, gt_boxes=Boxes(torch.cat([xy, xy + sides], 1)))
        instances.gt_classes = torch.randint(num_classes, (count,), generator=g)
        image = torch.randint(256, (3, *size), generator=g, dtype=torch.uint8)
        height, width = size
        batch.append({"image": image, "instances": instances, "height": height, "width": width})
    return batch
