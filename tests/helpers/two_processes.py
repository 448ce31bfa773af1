"""Training steps in two processes, the first of which has no objects."""

from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.programs import Programs


def assert_processes_agree(
    programs: Programs, leaf: Path, overrides: list[str], folder: Path
) -> None:
    """Train the model of a leaf for two steps; assert finite gradients, equal in both processes.

    Args:
        programs: starts the processes.
        leaf: path of the config.
        overrides: overrides in the notation of the command line.
        folder: folder for the gradients.
    """
    programs.spawn(_train, str(leaf), overrides, str(folder), processes=2, folder=folder)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
        assert gradient.isfinite().all()
    assert any(g.any() for g in first.values())


def _train(leaf: str, overrides: list[str], folder: str) -> None:
    rank = dist.get_rank()
    torch.manual_seed(0)
    cfg = LazyConfig.apply_overrides(LazyConfig.load(leaf), overrides).model
    model = DistributedDataParallel(instantiate(cfg).train())
    for _ in range(2):  # the second step fails if the first left a parameter without gradient
        model.zero_grad()
        with EventStorage():
            losses = model(_batch(2 * rank))
        sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    torch.save(gradients, f"{folder}/{rank}.pt")


def _batch(objects: int) -> list[dict]:
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 110, 80]])[:objects]
    instances = Instances((96, 128), gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.zeros(objects, dtype=torch.long)
    if objects:  # detectron2's mapper gives an image without objects no masks
        instances.gt_masks = BitMasks(torch.zeros(objects, 96, 128))
        instances.gt_masks.tensor[:, 30:50, 30:70] = True
    return [{"image": torch.full((3, 96, 128), 100.0), "instances": instances}]
