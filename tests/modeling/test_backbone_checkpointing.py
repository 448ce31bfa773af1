"""Activation checkpointing of backbones: the same gradients, statistics and names, less memory."""

from copy import deepcopy

import pytest
import torch
from detectron2.modeling.backbone import SwinTransformer
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from brloss_d2.errors import InputError
from brloss_d2.modeling import TorchvisionBackbone
from brloss_d2.modeling.backbone.checkpointing import checkpoint_activations


def resnet(norm: str) -> ResNet:
    stages = [
        ResNet.make_stage(
            BasicBlock,
            num_blocks=2,
            stride_per_block=[stride, 1],
            in_channels=channels,
            out_channels=2 * channels,
            norm=norm,
        )
        for channels, stride in ((4, 1), (8, 2))
    ]
    return ResNet(BasicStem(out_channels=4, norm=norm), stages, out_features=["res2", "res3"])


def swin() -> SwinTransformer:
    backbone = SwinTransformer(
        embed_dim=8,
        depths=(1, 2),
        num_heads=(1, 1),
        out_indices=(0, 1),
        drop_path_rate=0,
        use_checkpoint=True,
    )
    for block in [block for layer in backbone.layers for block in layer.blocks]:
        block.drop_path = StochasticDepth(0.5, mode="row")
    return backbone


BACKBONES = {
    "frozen": (lambda: resnet("FrozenBN"), 4),
    "batch": (lambda: resnet("BN"), 4),
    "sync": (lambda: resnet("nnSyncBN"), 4),
    "swin": (swin, 3),
    "mobilenet": (lambda: TorchvisionBackbone("mobilenet_v3_small", fixed_stats=False), 13),
    "regnet": (lambda: TorchvisionBackbone("regnet_y_400mf", fixed_stats=False), 16),
}


def trained(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return gradients and buffers after a step with fixed random numbers."""
    torch.manual_seed(0)
    sum(x.sin().mean() for x in model.backbone(images).values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**gradients, **dict(model.named_buffers())}


@pytest.mark.parametrize("name", BACKBONES)
def test_a_step_is_the_same(name: str) -> None:
    """Also with stochastic depth, and where the statistics of batch normalization are learned."""
    build, count = BACKBONES[name]
    model = nn.Module()
    model.backbone = build().train()
    other = deepcopy(model)
    for module in model.modules():
        if hasattr(module, "use_checkpoint"):
            module.use_checkpoint = False
    assert checkpoint_activations(other) == count
    images = torch.randn(2, 3, 64, 64)
    expected, found = trained(model, images), trained(other, images)
    assert expected.keys() == found.keys() and len(expected) > count
    for key, value in expected.items():
        assert torch.allclose(value, found[key], rtol=1e-6, atol=1e-6), key
    assert list(model.state_dict()) == list(other.state_dict())


def test_what_a_block_keeps() -> None:
    """The bytes kept for the backward pass; without gradients nothing is computed twice."""
    model = nn.Module()
    model.backbone = resnet("BN").train()
    calls: list[int] = []
    model.backbone.res3[1].conv2.register_forward_hook(lambda *_: calls.append(1))
    kept = {}
    for checkpointed in (False, True):
        if checkpointed:
            checkpoint_activations(model)
        seen: dict[int, int] = {}

        def keep(x: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            sum(x.sum() for x in model.backbone(torch.randn(2, 3, 64, 64)).values())
        kept[checkpointed] = sum(seen.values())
    assert kept[True] < 0.6 * kept[False]
    calls.clear()
    with torch.no_grad():
        model.backbone(torch.randn(2, 3, 64, 64))
    assert len(calls) == 1


def test_a_backbone_without_known_blocks() -> None:
    with pytest.raises(InputError, match="No blocks are known in the backbone Linear"):
        checkpoint_activations(nn.ModuleDict({"backbone": nn.Linear(1, 1)}))
