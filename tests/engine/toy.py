"""A model, data and metric that train in milliseconds, for config files written by the tests."""

from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor, nn

from brloss_d2.errors import InputError

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler
from torch.optim import SGD

from brloss_d2.engine import train_defaults
from toy import ToyEvaluator, ToyMapper, ToyModel, toy_dataset

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
        {"file_name": f"images/{i}.png", "image_id": i, "height": 2, "width": 2}
        for i in range(images)
    ]


class ToyMapper:
    """Make the image up; `corrupt` is the file that cannot be read."""

    def __init__(self, corrupt: str = ""):
        self.corrupt = corrupt

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        if record["file_name"] == self.corrupt:
            raise InputError(f"Image file unreadable: {self.corrupt}")
        return {**record, "image": torch.full((3, 2, 2), record["image_id"] + 1.0)}


class ToyModel(nn.Module):
    """Two losses; `nan_from` is the count of steps after which one of them is NaN on `nan_rank`."""

    def __init__(self, num_classes: int, nan_from: int | None = None, nan_rank: int = 0):
        super().__init__()
        self.linear = nn.Linear(3, num_classes)
        self.nan_from = nan_from
        self.nan_rank = nan_rank
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        device = self.linear.weight.device
        pixels = torch.stack([image["image"].mean((1, 2)) for image in batch]).to(device)
        logits = self.linear(pixels)
        if not self.training:
            return [{"score": row.max()} for row in logits]
        return self._losses(logits)

    def _losses(self, logits: Tensor) -> dict[str, Tensor]:
        broken = self.nan_from == int(self.steps) and comm.get_rank() == self.nan_rank
        self.steps += 1
        target = logits.square().mean() + (logits - 1).square().mean()
        return {
            "loss_rank": logits.square().mean(),
            "loss_box_reg": target * float("nan" if broken else 1),
        }


class ToyEvaluator(DatasetEvaluator):
    """The share of images seen, in percent; by class too."""

    def __init__(self, output_dir: str):
        self.output_dir = output_dir

    def reset(self) -> None:
        self.images = 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        self.images += len(outputs)

    def evaluate(self) -> dict[str, Any] | None:
        images = sum(comm.all_gather(self.images))
        return {"bbox": {"AP": 25.0 * images, "AP-red": 1.0}} if comm.is_main_process() else None
