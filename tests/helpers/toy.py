"""Model, data and metric that train in milliseconds, and a config file of them."""

import os
import random
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from brloss_d2.errors import InputError
from brloss_d2.losses import ConstantBalancer, EpochSelfBalancer

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler
from torch.optim import SGD

from brloss_d2.engine import train_defaults
from tests.helpers.toy import ToyEvaluator, ToyMapper, ToyModel, toy_dataset

model = L(ToyModel)(num_classes=3)
optimizer = L(SGD)(params=L(get_default_optimizer_params)(), lr=0.01, momentum=0.9)
lr_multiplier = L(CosineParamScheduler)(start_value=1.0, end_value=0.1)
dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(toy_dataset)(images=2),
        mapper=L(ToyMapper)(),
        total_batch_size=2,
        num_workers=0,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(toy_dataset)(images=4), mapper=L(ToyMapper)(), num_workers=0
    ),
    evaluator=L(ToyEvaluator)(output_dir="${train.output_dir}/inference"),
)
train = train_defaults()
train.update(max_iter=4, log_period=1, seed=1, device="cpu", num_threads=1)
train["checkpointer"]["period"] = 2
"""


def toy_dataset(images: int) -> list[dict[str, Any]]:
    return [
        {
            "file_name": f"images/{i}.png",
            "image_id": i,
            "height": 2,
            "width": 4 if i % 3 == 2 else 2,
        }
        for i in range(images)
    ]


class ToyMapper:
    """Mapper that makes up an image from its id and a little noise.

    Args:
        corrupt: file name of the image that "cannot be read".
    """

    def __init__(self, corrupt: str = ""):
        self.corrupt = corrupt

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        if record["file_name"] == self.corrupt:
            raise InputError(f"Image file unreadable: {self.corrupt}")
        noise = 0.01 * (random.random() + np.random.rand() + torch.rand(3, 2, 2))
        return {**record, "image": record["image_id"] + 1 + noise}


class ToyModel(nn.Module):
    """Linear classifier with two losses, which can fail in several ways.

    Args:
        num_classes: number of outputs.
        nan_from: number of steps after which a loss is NaN.
        nan_rank: rank of the process in which the model fails.
        kill_from: number of steps after which the process gets SIGKILL, the first time only if
            torchrun starts it again.
        stop_from: number of steps after which the process gets SIGTERM, as at the end of a job.
        dropout: probability of dropout. With dropout, the result depends on random numbers and on
            the state of a balancer.
        measured: whether to log metrics as detectors do.
    """

    def __init__(
        self,
        num_classes: int,
        nan_from: int | None = None,
        nan_rank: int = 0,
        kill_from: int | None = None,
        stop_from: int | None = None,
        dropout: float = 0.0,
        measured: bool = False,
    ):
        super().__init__()
        self.linear = nn.Linear(3, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.balancer = (
            EpochSelfBalancer(pools_per_epoch=3, initial=1.0) if dropout else ConstantBalancer()
        )
        self.kill_from, self.stop_from, self.measured = kill_from, stop_from, measured
        self.nan_from = nan_from
        self.nan_rank = nan_rank
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        device = self.linear.weight.device
        pixels = torch.stack([image["image"].mean((1, 2)) for image in batch]).to(device)
        logits = self.linear(self.dropout(pixels))
        if not self.training:
            return [{"score": row.max()} for row in logits]
        return self._losses(logits)

    def _losses(self, logits: Tensor) -> dict[str, Tensor]:
        here, step = comm.get_rank() == self.nan_rank, int(self.steps)
        self.steps += 1
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        if here and step == self.kill_from and not again:
            os.kill(os.getpid(), signal.SIGKILL)
        if here and step == self.stop_from:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.measured:
            get_event_storage().put_scalars(
                **{"roi_head/box_reg_unbalanced": 0.5, "roi_head/num_positives": 7}
            )
        rank = logits.square().mean()
        target = rank + (logits - 1).square().mean()
        broken = here and step == self.nan_from
        box = self.balancer(rank.detach(), target, 1)
        return {"loss_rank": rank, "loss_box_reg": box * float("nan" if broken else 1)}


class ToyEvaluator(DatasetEvaluator):
    """Evaluator whose AP is 25 times the number of images.

    Args:
        output_dir: folder of the evaluation; calls are listed in evaluated.txt next to it.
        scores: AP by iteration, instead.
        fail_from: any number makes each evaluation fail.
    """

    def __init__(self, output_dir: str, scores: Sequence[float] = (), fail_from: int | None = None):
        self.output_dir, self.scores, self.fail_from = output_dir, scores, fail_from

    def reset(self) -> None:
        self.images = 0
        parent = os.path.dirname(self.output_dir)
        os.makedirs(parent, exist_ok=True)
        with open(f"{parent}/evaluated.txt", "a") as file:
            file.write(f"{self.output_dir}\n")

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        self.images += len(outputs)

    def evaluate(self) -> dict[str, Any] | None:
        if self.fail_from is not None:
            raise RuntimeError("no evaluation")
        images = sum(comm.all_gather(self.images))
        ap = 25.0 * images
        if self.scores and has_event_storage():
            ap = self.scores[min(get_event_storage().iter, len(self.scores) - 1)]
        return {"bbox": {"AP": ap, "AP-red": 1.0}} if comm.is_main_process() else None
