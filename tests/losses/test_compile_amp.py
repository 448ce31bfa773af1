"""A small model with our criteria under torch.compile and under automatic mixed precision."""

import pytest
import torch
from torch import Tensor, nn

from brloss_d2.criteria import MatchedPredictions
from tests.helpers.criteria import build_criterion

NUM_CLASSES = 3
RANKING = ("ap", "bap", "alrp", "rs", "brs")


class SmallHead(nn.Module):
    """Class scores and boxes of rows with known labels, and their losses."""

    def __init__(self, name: str):
        super().__init__()
        self.criterion = build_criterion(name, "roi", pools_per_epoch=100)
        self.scores = nn.Linear(8, self.criterion.num_logits(NUM_CLASSES))
        self.offsets = nn.Linear(8, 4)

    def forward(self, features: Tensor, labels: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        foreground = ((labels >= 0) & (labels < NUM_CLASSES)).nonzero().squeeze(1)
        found = boxes[foreground] + self.offsets(features)[foreground]
        logits = self.scores(features)
        matched = MatchedPredictions(logits, labels, found, boxes[foreground], NUM_CLASSES)
        return self.criterion(matched).losses


def make_model(name: str, device: str = "cpu") -> SmallHead:
    torch.manual_seed(0)
    return SmallHead(name).to(device)


def make_batch(seed: int, rows: int = 60, device: str = "cpu") -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, NUM_CLASSES + 1, (rows,), generator=generator)
    corner = 40 * torch.rand(rows, 2, generator=generator)
    features = torch.randn(rows, 8, generator=generator)
    features[:, :3] += 2 * (labels[:, None] == torch.arange(3))
    return tuple(x.to(device) for x in (features, labels, torch.cat([corner, corner + 20], 1)))


def losses_and_gradients(model: nn.Module, batch: tuple[Tensor, ...]):
    model.zero_grad()
    losses = model(*batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {name: value.detach() for name, value in losses.items()}, gradients


def skip_unless_it_compiles(backend: str) -> None:
    try:
        torch.compile(lambda x: x.sin() + 1, backend=backend)(torch.ones(3))
    except Exception as error:  # whatever is missing: a compiler, support for this Python, ...
        pytest.skip(f"torch.compile does not work here with {backend}: {error}")


def check_compiled(name: str, backend: str, batches: list[tuple[Tensor, ...]]) -> None:
    model, compiled = make_model(name), torch.compile(make_model(name), backend=backend)
    for batch in batches:
        losses, gradients = losses_and_gradients(compiled, batch)
        expected, expected_gradients = losses_and_gradients(model, batch)
        torch.testing.assert_close(losses, expected)
        for parameter, gradient in expected_gradients.items():
            torch.testing.assert_close(gradients[f"_orig_mod.{parameter}"], gradient)


@pytest.mark.parametrize("name", [name for name in RANKING if name != "rs"])
def test_compiled_model_computes_the_same(name):
    """Through Dynamo and AOTAutograd, which need no compiler; graph breaks are allowed.

    Functions that losses share are compiled once.
    """
    skip_unless_it_compiles("aot_eager")
    check_compiled(name, "aot_eager", [make_batch(0)])


def test_compiled_model_takes_batches_of_any_size():
    """The first size is compiled for itself, the second one for all sizes."""
    skip_unless_it_compiles("aot_eager")
    torch.compiler.reset()  # what others have compiled counts for the limit of recompilations
    features, labels, boxes = make_batch(2, rows=30)
    no_positives = (features, labels.where(labels < 0, NUM_CLASSES), boxes)
    check_compiled("rs", "aot_eager", [make_batch(0), make_batch(1, rows=50), no_positives])


def test_model_compiled_by_inductor_computes_the_same():
    """The default back-end, through a C++ compiler: a minute where its cache is empty."""
    skip_unless_it_compiles("inductor")
    torch.compiler.reset()
    check_compiled("rs", "inductor", [make_batch(0)])


@pytest.mark.parametrize("name", RANKING)
def test_bfloat16_autocast_on_a_cpu(name):
    model, batch = make_model(name), make_batch(0)
    expected, expected_gradients = losses_and_gradients(model, batch)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.scores(batch[0]).dtype == torch.bfloat16
        losses = model(*batch)
    assert all(value.dtype == torch.float32 for value in losses.values())
    # Half a unit in the last of 8 bits of logits about 1, on a ramp half a logit wide.
    torch.testing.assert_close(
        {k: v.detach() for k, v in losses.items()}, expected, atol=0.01, rtol=0.01
    )
    torch.stack(list(losses.values())).sum().backward()
    for parameter, value in model.named_parameters():
        reference = expected_gradients[parameter]
        assert value.grad.isfinite().all()
        assert (value.grad - reference).norm() <= 0.05 * reference.norm()


@pytest.mark.parametrize("name", RANKING)
def test_training_in_bfloat16_lowers_the_ranking_loss(name):
    model, batch = make_model(name), make_batch(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ranking = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model(*batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        ranking.append(float(losses["loss_rank"].detach()))
        assert all(value.isfinite() for value in losses.values())
    assert ranking[-1] < 0.9 * ranking[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="GradScaler in fp16 needs a GPU")
@pytest.mark.parametrize("name", RANKING)
def test_float16_autocast_with_grad_scaler_on_a_gpu(name):
    model, batch = make_model(name, "cuda"), make_batch(0, device="cuda")
    expected, _ = losses_and_gradients(model, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda")
    ranking = []
    for step in range(20):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            losses = model(*batch)
        if step == 0:
            detached = {k: v.detach() for k, v in losses.items()}
            torch.testing.assert_close(detached, expected, atol=0.01, rtol=0.01)
        scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        ranking.append(float(losses["loss_rank"].detach()))
        assert all(value.isfinite() for value in losses.values())
    assert ranking[-1] < 0.9 * ranking[0]
    assert all(p.isfinite().all() for p in model.parameters())
