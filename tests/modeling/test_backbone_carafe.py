"""CARAFE and its feature pyramid: published values and gradients, borders, memory, autocast."""

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import pixel_unshuffle

from brloss_d2.checkpoint import architectures, from_mmdetection, to_mmdetection
from brloss_d2.model_zoo import get_config
from brloss_d2.modeling.backbone.carafe import CarafeFPN, CarafeUpsample, carafe
from tests.helpers.golden_models import SHIPPED
from tests.helpers.golden_rcnn import CLASSES, shrink
from tests.helpers.random_inputs import random_inputs

GOLDEN = np.load(SHIPPED / "carafe.npz")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
OPERATORS = ("op_k5_g1_s2", "op_k3_g2_s3", "op_k5_one_pixel")
MODULES = ("pack_small", "pack_g2_k3_s3_e5")
LEVELS = range(2, 7)


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return DTYPES[request.param]


def read(key: str, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(GOLDEN[key]).to(dtype)


def assert_close(actual: Tensor, key: str, *, is_gradient: bool = False) -> None:
    expected = read(key, torch.float64)
    tolerance = 1e-10 if actual.dtype == torch.float64 else 1e-4 if is_gradient else 1e-5
    worst = (actual.detach().double() - expected).abs().max()
    assert worst <= tolerance * expected.abs().max(), key


def published_names(prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in GOLDEN.files if name.startswith(prefix)]


@pytest.mark.parametrize("case", OPERATORS)
def test_operator(case: str, dtype: torch.dtype) -> None:
    size, groups, scale = GOLDEN[f"{case}/config"].tolist()
    x, kernels = (
        read(f"{case}/{name}", dtype).requires_grad_() for name in ("features", "kernels")
    )
    out = carafe(x, pixel_unshuffle(kernels, scale).unflatten(1, (groups, size**2, scale**2)))
    out.backward(read(f"{case}/grad_out", dtype))
    assert_close(out, f"{case}/out")
    assert_close(x.grad, f"{case}/grad_features", is_gradient=True)
    assert_close(kernels.grad, f"{case}/grad_kernels", is_gradient=True)


@pytest.mark.parametrize("case", MODULES)
def test_module(case: str, dtype: torch.dtype) -> None:
    size, groups, scale, encoder_size, compressed = GOLDEN[f"{case}/config"].tolist()
    x = read(f"{case}/x", dtype).requires_grad_()
    module = CarafeUpsample(
        x.shape[1],
        scale=scale,
        kernel_size=size,
        groups=groups,
        encoder_size=encoder_size,
        compressed_channels=compressed,
    ).to(dtype)
    names = {
        f"{ours}.{tensor}": f"{published}.{tensor}"
        for ours, published in (
            ("compressor", "channel_compressor"),
            ("encoder", "content_encoder"),
        )
        for tensor in ("weight", "bias")
    }
    module.load_state_dict({n: read(f"{case}/param/{p}", dtype) for n, p in names.items()})
    out = module(x)
    out.backward(read(f"{case}/grad_out", dtype))
    assert_close(out, f"{case}/out")
    assert_close(x.grad, f"{case}/grad/x", is_gradient=True)
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, f"{case}/grad/{names[name]}", is_gradient=True)


class Features(Backbone):
    """Backbone whose features are its input."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return x

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            f"res{i}": ShapeSpec(channels=channels, stride=2**i)
            for i, channels in enumerate(self.channels, 2)
        }


def pyramid(channels: list[int], out_channels: int, **options: int) -> CarafeFPN:
    return CarafeFPN(Features(channels), ["res2", "res3", "res4", "res5"], out_channels, **options)


def test_pyramid(dtype: torch.dtype) -> None:
    """Its C5 has the odd sides 3 and 5, so that the upsampled P6 is cut."""
    features = {f"res{i}": read(f"fpn/c{i}", dtype).requires_grad_() for i in range(2, 6)}
    model = pyramid([x.shape[1] for x in features.values()], 8, compressed_channels=4).to(dtype)
    published = published_names("fpn/param/")
    table = architectures()["faster_rcnn"].table([f"neck.{name}" for name in published])
    names = {
        ours.removeprefix("backbone."): name.removeprefix("neck.")
        for name, ours in table
        if name.startswith("neck.")
    }
    model.load_state_dict({n: read(f"fpn/param/{p}", dtype) for n, p in names.items()})
    out = model(features)
    assert list(out) == list(model.output_shape()) == [f"p{i}" for i in LEVELS]
    torch.autograd.backward(list(out.values()), [read(f"fpn/grad_p{i}", dtype) for i in LEVELS])
    for i in LEVELS:
        assert_close(out[f"p{i}"], f"fpn/p{i}")
    for i in range(2, 6):
        assert_close(features[f"res{i}"].grad, f"fpn/grad/c{i}", is_gradient=True)
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, f"fpn/grad/{names[name]}", is_gradient=True)


def test_number_of_parameters_and_shapes() -> None:
    model = pyramid([256, 512, 1024, 2048], 256)
    assert sum(p.numel() for p in model.parameters()) == 8_949_904
    assert model.size_divisibility == 32
    assert {n: (s.channels, s.stride) for n, s in model.output_shape().items()} == {
        f"p{i}": (256, 2**i) for i in LEVELS
    }


def test_initialization() -> None:
    """A convolution of a level is Xavier-uniform, upsampling nearly the mean of 5 x 5 pixels."""
    torch.manual_seed(0)
    model = pyramid([16, 16, 16, 16], 32)
    bound = (6 / (9 * 16 + 9 * 32)) ** 0.5
    assert 0.95 * bound < model.fpn_lateral6.weight.abs().max() <= bound
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))
    x = torch.rand(1, 32, 9, 9)
    mean = nn.functional.avg_pool2d(x, 5, 1, 2)
    upsampled = nn.functional.interpolate(mean, scale_factor=2.0)
    torch.testing.assert_close(model.fpn_upsample2(x), upsampled, rtol=0, atol=0.02)


def test_a_constant_stays_constant_but_at_the_border() -> None:
    torch.manual_seed(0)
    module = CarafeUpsample(4)
    with torch.no_grad():
        module.encoder.weight.normal_()
        out = module(torch.full((1, 4, 8, 9), 3.0))
    torch.testing.assert_close(out[..., 4:-4, 4:-4], torch.full((1, 4, 8, 10), 3.0))
    assert (out[..., 0, :] < 2.99).all(), "zeros outside, weights that are not scaled up"


@pytest.mark.parametrize("size", [(1, 1), (33, 40), (65, 97), (64, 128)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    features = {
        f"res{i}": torch.randn(1, 4, *(-(-side // 2**i) for side in size)) for i in range(2, 6)
    }
    out = pyramid([4, 4, 4, 4], 4, compressed_channels=4)(features)
    for i in LEVELS:
        assert out[f"p{i}"].shape[2:] == tuple(-(-side // 2**i) for side in size)


def test_what_is_kept_for_the_backward_pass() -> None:
    """Padded input and weights: less than half of the output instead of 25 products."""
    x, kernels = torch.rand(1, 128, 20, 20), torch.rand(1, 1, 25, 4, 20, 20)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = carafe(x.requires_grad_(), kernels.requires_grad_())
    assert 0 < sum(kept.values()) < 0.6 * out.untyped_storage().nbytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, kernels = torch.randn(1, 6, 5, 7), torch.randn(1, 2, 9, 4, 5, 7).softmax(2)
    with torch.autocast("cpu", dtype):
        out = carafe(x.to(dtype), kernels)
    assert torch.equal(out, carafe(x.to(dtype).float(), kernels).to(dtype)), "rounded once"
    model = pyramid([8, 8, 8, 8], 8, compressed_channels=4)
    features = {f"res{i}": torch.randn(2, 8, 64 >> i, 64 >> i) for i in range(2, 6)}
    with torch.autocast("cpu", dtype):
        levels = model(features)
    sum(level.float().square().sum() for level in levels.values()).backward()
    expected = model(features)
    for name, level in levels.items():
        assert level.dtype == dtype
        torch.testing.assert_close(level.float(), expected[name], rtol=0.1, atol=0.05)
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_published_names_there_and_back() -> None:
    state = instantiate(get_config("coco/mask_rcnn_R_50_CARAFE_FPN_rs_1x").model).state_dict()
    published = to_mmdetection(state, "mask_rcnn")
    of_the_neck = {n.removeprefix("neck.") for n in published if n.startswith("neck.")}
    assert of_the_neck == set(published_names("fpn/param/"))
    back = from_mmdetection(published, "mask_rcnn")
    assert all(torch.equal(back[name], state[name]) for name in back)
    assert all(name.endswith("num_batches_tracked") for name in state.keys() - back.keys())


def test_a_detector_trains_a_step() -> None:
    torch.manual_seed(0)
    cfg = get_config("coco/faster_rcnn_R_50_CARAFE_FPN_rs_1x").model
    shrink(cfg)
    model = instantiate(cfg).train()
    losses = model(random_inputs(2, 0, num_classes=CLASSES))
    sum(losses.values()).backward()
    for name, parameter in model.backbone.named_parameters():
        if name.startswith("fpn_"):
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
