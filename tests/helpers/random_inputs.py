"""Batches of random images with random objects, as detectron2's models take them."""

import torch
from detectron2.structures import Boxes, Instances


def random_inputs(
    *objects: int,
    num_classes: int,
    seed: int = 0,
    largest: float = 50.0,
    size: tuple[int, int] = (96, 128),
) -> list[dict]:
    """One image for each number of objects, of sides 0.4 to 1 times `largest` pixels."""
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
