"""Steps of the same training, whose images several processes share."""

from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from brloss_d2.projects.co_detr.modeling import co_detr, custom_queries

IMAGES, HEIGHT, WIDTH = 8, 64, 96
QUERIES, REGIONS = 12, 32  # of an image for an auxiliary head of Co-DETR, if they are its own


def train(leaf: str, pool: str, steps: int, folder: str) -> None:
    """Train on eight images; the first process saves losses, gradients and weights.

    In double precision, also where detectron2 insists on single: otherwise rounding decides which
    of two scores is higher, and after a few steps the weights differ visibly.

    Args:
        leaf: path of the config.
        pool: `local` for pools of two images of a process, `global` for one of all images.
        steps: number of steps of the optimizer.
        folder: folder of PROCESSES.pt.
    """
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    Boxes.__init__ = lambda boxes, tensor: setattr(boxes, "tensor", tensor.double())
    cfg = LazyConfig.load(leaf).model
    _set_pools(cfg, pool)
    torch.manual_seed(0)
    model = DistributedDataParallel(instantiate(cfg).train())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = [_image(i) for i in range(rank * IMAGES // size, (rank + 1) * IMAGES // size)]
    found = []
    for step in range(steps):
        optimizer.zero_grad()
        with EventStorage():
            losses = model(images)
        sum(losses.values()).backward()
        values = torch.stack([losses[name].detach() for name in sorted(losses)])
        dist.all_reduce(values)
        found.append(dict(zip(sorted(losses), values / size, strict=True)))
        if step == 0:
            gradients = {n: p.grad.clone() for n, p in model.module.named_parameters()}
        optimizer.step()
    if rank == 0:
        result = {"losses": found, "gradients": gradients, "weights": model.module.state_dict()}
        torch.save(result, f"{folder}/{size}.pt")


def train_with_own_queries(*arguments: Any) -> None:
    """Do as `train`, with customized queries of Co-DETR that depend on their image alone.

    As published, an image has as many as the image of its process that needs most, filled up with
    random background of regions of which it hands over as many as the image with the fewest. Here
    each has QUERIES rows of its own, and hands over REGIONS, of which every image has more.
    """
    draw = custom_queries.choose_rows

    def choose_rows(labels: Sequence[Tensor], num_classes: int, *_: int, **__: Any) -> Tensor:
        assert all(len(x) >= REGIONS for x in labels), "fewer regions than an image hands over"
        own = [draw([x], num_classes, QUERIES, QUERIES, _seeded(0)) for x in labels]
        return torch.cat(own)

    with (
        mock.patch.object(co_detr, "choose_rows", choose_rows),
        mock.patch.object(custom_queries, "_MAX_REGIONS", REGIONS),
    ):
        train(*arguments)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _set_pools(node: DictConfig | ListConfig, pool: str) -> None:
    for part in node.values() if isinstance(node, DictConfig) else node:
        if isinstance(part, DictConfig | ListConfig):
            _set_pools(part, pool)
    if isinstance(node, DictConfig) and "images_per_pool" in node:
        node.images_per_pool, node.pool = 2 if pool == "local" else None, pool


def _image(number: int) -> dict:
    """Draw an image with as many boxes as its number, up to three, the first without any."""
    generator = _seeded(number)
    corner, side = torch.rand(2, min(number, 3), 2, generator=generator)
    corner = corner * torch.tensor([WIDTH - 40, HEIGHT - 40])
    boxes = torch.cat([corner, corner + 10 + 28 * side], dim=1)
    instances = Instances((HEIGHT, WIDTH), gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.arange(len(boxes)) % 2
    image = 255 * torch.rand(3, HEIGHT, WIDTH, generator=generator)
    return {"image": image, "instances": instances, "height": HEIGHT, "width": WIDTH}
