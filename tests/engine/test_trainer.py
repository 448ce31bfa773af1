from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import hooks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from brloss_d2.engine import NonFiniteLossError, Trainer

BATCH = [{"file_name": "a.png"}, {"file_name": "b.png"}]


class Model(nn.Module):
    """Loss terms are functions of the one weight `w`, which starts at 1."""

    def __init__(self, **terms: Any):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))
        self.terms = terms

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {name: term(self.w) for name, term in self.terms.items()}


def trainer_of(model: nn.Module, lr: float = 1.0, **options: Any) -> Trainer:
    return Trainer(model, [BATCH] * 9, torch.optim.SGD(model.parameters(), lr=lr), **options)


def test_a_step_follows_the_gradient_of_the_sum() -> None:
    model = Model(loss_a=lambda w: w.sum(), loss_b=lambda w: 2 * w.sum())
    trainer_of(model, lr=0.1).train(0, 2)
    assert torch.allclose(model.w, torch.full((2,), 1 - 2 * 0.1 * 3))


def test_a_model_may_return_one_loss() -> None:
    model = Model()
    model.forward = lambda batch: model.w.sum()
    trainer_of(model, lr=0.5).train(0, 1)
    assert torch.allclose(model.w, torch.full((2,), 0.5))


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("-inf"), "-inf")])
def test_divergence_names_terms_iteration_and_images(value: float, shown: str) -> None:
    bad = Model(
        loss_rank=lambda w: w.sum(), loss_sort=lambda w: w.sum() * value, loss_box=lambda w: w[0]
    )
    with pytest.raises(NonFiniteLossError) as error:
        trainer_of(bad).train(7, 9)
    message = str(error.value)
    assert f"iteration 7: loss_sort is {shown}\n" in message
    assert "a.png, b.png" in message and "optimizer.lr" in message
    assert "loss_rank" not in message
    assert torch.equal(bad.w, torch.ones(2)), "the parameters must stay as they were"


def test_divergence_that_the_model_finds_itself() -> None:
    def diverge(w: torch.Tensor) -> torch.Tensor:
        raise FloatingPointError("Predicted boxes contain Inf")

    with pytest.raises(NonFiniteLossError, match=r"(?s)iteration 0: Predicted boxes.*a\.png"):
        trainer_of(Model(loss=diverge)).train(0, 1)


def test_hooks_learn_whether_training_went_well() -> None:
    iterations = []
    for value in (1.0, float("nan")):
        trainer = trainer_of(Model(loss=lambda w, value=value: w.sum() * value))
        trainer.register_hooks(
            [hooks.CallbackHook(after_train=lambda trainer: iterations.append(trainer.iter))]
        )
        with suppress(NonFiniteLossError):
            trainer.train(0, 1)
    assert iterations == [1, 0], "max_iter means success"


def test_the_end_of_training_reaches_all_hooks() -> None:
    trainer, reached = trainer_of(Model(loss=lambda w: w.sum())), []

    def fail(trainer: Trainer) -> None:
        raise RuntimeError("no evaluation")

    ends = (lambda t: reached.append(1), fail, lambda t: reached.append(2))
    trainer.register_hooks([hooks.CallbackHook(after_train=end) for end in ends])
    with pytest.raises(RuntimeError, match="no evaluation"):
        trainer.train(0, 1)
    assert reached == [1, 2]


def test_clipping_bounds_the_norm_of_the_whole_gradient() -> None:
    model = Model(loss=lambda w: 3 * w[0] + 4 * w[1])
    trainer_of(model, clip_grad_norm=1.0).train(0, 1)
    assert torch.allclose(model.w, torch.tensor([1 - 0.6, 1 - 0.8]), atol=1e-5)


def test_accumulated_losses_are_averaged_and_clipped_once() -> None:
    scales = iter([1.0, 5.0])
    model = Model(loss=lambda w: next(scales) * (3 * w[0] + 4 * w[1]))
    trainer = trainer_of(model, clip_grad_norm=1.0, accumulate=2)
    logged = []
    trainer.write_metrics = lambda losses, *args: logged.append(float(losses["loss"]))
    trainer.train(0, 1)
    assert logged == [21.0]
    assert torch.allclose(model.w, torch.tensor([1 - 0.6, 1 - 0.8]), atol=1e-5)


def test_processes_average_their_gradients_once_an_iteration(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model, seen = Model(loss=lambda w: w.sum()), []
        trainer = trainer_of(model, accumulate=3)
        trainer.model = DistributedDataParallel(model)
        model.register_forward_hook(
            lambda *args: seen.append(trainer.model.require_backward_grad_sync)
        )
        trainer.train(0, 2)
        assert seen == [False, False, True] * 2
    finally:
        torch.distributed.destroy_process_group()


def test_training_stops_when_told_to() -> None:
    trainer, ends = trainer_of(Model(loss=lambda w: w.sum())), []
    stop = hooks.CallbackHook(
        after_step=lambda trainer: trainer.iter == 1 and trainer.stop("Enough", finished=True),
        after_train=lambda trainer: ends.append(trainer.iter),
    )
    trainer.register_hooks([stop])
    trainer.train(0, 5)
    assert ends == [1] and trainer.stop_reason == "Enough"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_covers_the_forward_pass_only(dtype: torch.dtype) -> None:
    seen = []
    model = Model()
    model.linear = nn.Linear(2, 2)

    def forward(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        out = model.linear(model.w)
        seen.append(out.dtype)
        return {"loss": out.float().sum()}

    model.forward = forward
    trainer = trainer_of(model, amp_dtype=dtype)
    trainer.after_backward = lambda: seen.append(torch.is_autocast_enabled("cpu"))
    trainer.train(0, 1)
    assert seen == [dtype, False]
    assert model.linear.weight.dtype == torch.float32
    assert not trainer.grad_scaler.is_enabled(), "a CPU has no scaler"


def test_state_moves_to_another_trainer() -> None:
    def momentum(trainer: Trainer) -> torch.Tensor:
        return trainer.optimizer.state[trainer.model.w]["momentum_buffer"]

    def new() -> Trainer:
        model = Model(loss=lambda w: w.square().sum())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return Trainer(model, [BATCH] * 9, optimizer)

    trainer, other = new(), new()
    trainer.train(0, 3)
    other.load_state_dict(trainer.state_dict())
    assert other.iter == 2, "the last one done"
    assert torch.equal(momentum(other), momentum(trainer))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_overflowing_gradient_is_skipped_under_float16() -> None:
    # The scale starts at 2**16, so that a gradient of 1e35 overflows when it is scaled.
    model = Model(loss=lambda w: w.sum() * 1e35).cuda()
    trainer = trainer_of(model, amp_dtype=torch.float16, clip_grad_norm=1.0)
    scale = trainer.grad_scaler.get_scale()
    trainer.train(0, 1)
    assert torch.equal(model.w.cpu(), torch.ones(2))
    assert trainer.grad_scaler.get_scale() < scale
    assert trainer.state_dict()["grad_scaler"]["scale"] < scale
