"""Keys of memory and speed: the same model, in another form while it trains."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from torch import nn

from brloss_d2.engine import load_config
from brloss_d2.engine.optimizer import freeze
from brloss_d2.engine.speed import apply_speed_keys
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file
from detectors import random_batch
from tests.helpers.toy import ToyModel

KEYS = ("activation_checkpointing", "channels_last", "compile")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile without the minutes that its code generator takes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def detector() -> nn.Module:
    torch.manual_seed(0)
    cfg, _ = load_config(config_file("quick/atss_R_18_FPN_rs_300it"))
    return instantiate(cfg.model).train()


class Tiny(nn.Module):
    """A model that dynamo traces in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyBackbone()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone(images)["res2"].square().mean()


class TinyBackbone(nn.Sequential):
    """A convolution with batch normalization and dropout."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"res2": super().forward(images)}


class ToyWithBackbone(ToyModel):
    """A classifier of features, for whole trainings."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.backbone = TinyBackbone()

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        images = torch.stack([F.pad(record["image"], (1, 1, 1, 1)) for record in batch])
        features = self.backbone(images)["res2"][:, :3]
        return super().forward([{"image": image} for image in features])


def apply(model: nn.Module, *keys: str) -> None:
    apply_speed_keys(model, OmegaConf.create({key: key in keys for key in KEYS}))


def losses_and_gradient(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    with EventStorage():
        losses = model(random_batch(2, (64, 96), 3, 3))
    sum(losses.values()).backward()
    gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.stack(list(losses.values())).detach(), torch.cat(gradient)


@pytest.mark.parametrize("key", KEYS[:2])
def test_losses_gradients_and_names_stay(key: str) -> None:
    model = detector()
    other = deepcopy(model)
    apply(other, key)
    assert list(model.state_dict()) == list(other.state_dict())
    for one, same in zip(losses_and_gradient(model), losses_and_gradient(other), strict=True):
        assert torch.allclose(one, same, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
    with torch.no_grad():
        assert len(other.eval()(random_batch(1, (96, 64), 3, 3))) == 1


def test_a_compiled_backbone_starts_as_it_was(eager: None) -> None:
    """Trying it changes no weights, statistics, gradients, random numbers or names."""
    model = Tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other, random = deepcopy(model), torch.get_rng_state()
    apply(other, "compile")
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in other.parameters())
    assert list(before) == list(other.state_dict()), "no _orig_mod"
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    images = torch.rand(2, 3, 20, 24)
    for mode in (True, False):
        losses = []
        for one in (model, other):
            torch.manual_seed(0)
            losses.append(one.train(mode)(images))
        assert torch.equal(*losses)
    other.load_state_dict(before)


def test_a_frozen_backbone_is_compiled(eager: None) -> None:
    model = Tiny().train()
    freeze(nn.ModuleDict({"model": model, "head": nn.Linear(1, 1)}), ["model.backbone"])
    apply(model, "compile")
    assert torch.isfinite(model(torch.rand(2, 3, 20, 24)))


def test_a_compiled_run_resumes(
    eager: None, train_net: Callable[..., Path], config: Path, tmp_path: Path
) -> None:
    """Compiled or not, from checkpoints with the names of any other."""
    node = "model = L(ToyWithBackbone)(num_classes=3)\n"
    with config.open("a", encoding="utf-8") as file:
        file.write(f"from tests.engine.test_speed import ToyWithBackbone\n{node}")
    keys = ["dataloader.evaluator=null", "lr_multiplier.end_value=1.0"]
    found = []
    for name, first, second in (("plain", 0, 0), ("compiled", 1, 1), ("both", 1, 0)):
        out = tmp_path / name
        keys_of_run = [*keys, f"train.output_dir={out}"]
        train_net(*keys_of_run, f"train.compile={bool(first)}", "train.max_iter=2")
        train_net(*keys_of_run, f"train.compile={bool(second)}", resume=True)
        state = torch.load(out / "model_final.pth", weights_only=True)
        assert state["iteration"] == 3
        found.append(state["model"])
    for other in found[1:]:
        assert list(other) == list(found[0])
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


def test_channels_are_last_in_memory() -> None:
    model, seen = detector(), []
    apply(model, "channels_last")
    model.backbone.bottom_up.res4.register_forward_hook(lambda *x: seen.append(x[2]))
    losses_and_gradient(model)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_what_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, for models without a backbone and where no compiler is installed."""
    with pytest.raises(InputError, match="Linear has no backbone to compile"):
        apply(nn.Linear(1, 1), "compile")

    def fail(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fail))
    torch._dynamo.reset()
    with pytest.raises(InputError, match=r"cannot be compiled, .*no C\+\+ compiler") as error:
        apply(Tiny(), "compile")
    torch._dynamo.reset()
    assert len(str(error.value).splitlines()) == 1


def test_two_keys_that_exclude_each_other() -> None:
    keys = ["train.compile=True", "train.activation_checkpointing=True"]
    with pytest.raises(InputError, match=r"train\.compile decides itself"):
        load_config(config_file("quick/atss_R_18_FPN_rs_300it"), keys)
