"""Data-parallel training where one process has no objects at all."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

QUICK = Path(__file__).parents[2] / "configs" / "quick"


def batch(objects: int) -> list[dict]:
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 110, 80]])[:objects]
    instances = Instances((96, 128), gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.zeros(objects, dtype=torch.long)
    return [{"image": torch.full((3, 96, 128), 100.0), "instances": instances}]


def train_one_step(rank: int, port: int, leaf: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    cfg = LazyConfig.load(str(QUICK / f"{leaf}_300it.py")).model
    (cfg.roi_heads if "roi_heads" in cfg else cfg).num_classes = 2
    model = DistributedDataParallel(instantiate(cfg).train())
    for _ in range(2):  # the second step fails if the first left a parameter without gradient
        model.zero_grad()
        with EventStorage():
            losses = model(batch(2 * rank))
        sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.module.named_parameters()}
    torch.save(gradients, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "leaf",
    [
        *("faster_rcnn_R_18_FPN_brs", "faster_rcnn_R_18_FPN_ce"),
        *("atss_R_18_FPN_brs", "atss_R_18_FPN_focal"),
    ],
)
def test_a_process_without_objects_keeps_up(leaf, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(train_one_step, args=(port, leaf, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
        assert gradient.isfinite().all()
    assert any(g.any() for g in first.values())
