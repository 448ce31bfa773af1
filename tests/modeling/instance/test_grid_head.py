"""The heads of SOLOv2: positions, sizes of maps, numbers of parameters."""

import pytest
import torch
from detectron2.config import LazyConfig

from brloss_d2.model_zoo import get_criterion
from brloss_d2.modeling import GridHead, MaskFeatureHead
from brloss_d2.modeling.instance.grid_head import with_coordinates
from tests.helpers.configs import ROOT, build_without_weights


def test_positions():
    """Horizontal first, both ends included."""
    x = with_coordinates(torch.zeros(2, 4, 3, 5))
    assert x.shape == (2, 6, 3, 5)
    torch.testing.assert_close(x[1, 4], torch.tensor([-1, -0.5, 0, 0.5, 1]).expand(3, 5))
    torch.testing.assert_close(x[1, 5], torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 5))


def seen_by_tower(features: list[torch.Tensor], grid_sizes: list[int]) -> list[torch.Tensor]:
    """What the class tower gets of each level."""
    head = GridHead(
        in_channels=1, num_classes=2, kernel_dim=3, grid_sizes=grid_sizes, conv_dims=(32,)
    )
    seen = []
    head.cls_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, 0]))
    head(features)
    return seen


def test_sizes_of_the_levels():
    """The finest is halved, the coarsest as large as the one before it: worked examples."""
    finest = torch.arange(16.0).view(1, 1, 4, 4)
    coarsest = torch.tensor([[[[0.0, 3, 6], [12, 15, 18]]]])
    seen = seen_by_tower([finest, torch.zeros(1, 1, 4, 6), coarsest], [2, 4, 4])
    torch.testing.assert_close(seen[0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    # Columns 0, .75, 2.25, 3.75, 5.25, 6 of the first row, then 6 to 4 cells.
    row = torch.tensor([0, 0.75, 2.25, 3.75, 5.25, 6])
    expected = torch.nn.functional.interpolate(row[None, None], size=4, mode="linear")[0, 0]
    torch.testing.assert_close(seen[2][0], expected)


def test_outputs():
    head = GridHead(
        in_channels=8, num_classes=5, kernel_dim=16, grid_sizes=(6, 4, 3), conv_dims=(32,)
    )
    features = [torch.randn(2, 8, size, size + 2) for size in (16, 8, 4)]
    logits, kernels = head(features)
    assert [x.shape for x in logits] == [(2, 5, g, g) for g in (6, 4, 3)]
    assert [x.shape for x in kernels] == [(2, 16, g, g) for g in (6, 4, 3)]
    torch.testing.assert_close(head.cls_logits.bias.sigmoid(), torch.full((5,), 0.01))
    masks = MaskFeatureHead(in_channels=8, out_channels=32, conv_dim=32, num_levels=3)
    features = [torch.randn(2, 8, 4 * size, 6 * size) for size in (4, 2, 1)]
    assert masks(features).shape == (2, 32, 16, 24)


@pytest.mark.parametrize(
    ("name", "head", "mask_head", "pyramid", "whole"),
    [
        ("solov2_light_fpn", 2_845_392, 1_642_752, 2_607_104, 28_379_920),
        ("solov2_fpn", 18_081_104, 1_659_392, 3_344_384, 65_585_040),
    ],
)
def test_numbers_of_parameters(name, head, mask_head, pyramid, whole):
    """As published; with those of frozen batch norm."""
    node = LazyConfig.load(str(ROOT / f"configs/common/models/{name}.py")).model
    node.criterion = get_criterion("rs", "solov2")
    node.mask_criterion = get_criterion("rs", "solov2_mask")
    model = build_without_weights(node)

    def count(module: torch.nn.Module) -> int:
        weights = module.state_dict().items()
        return sum(x.numel() for key, x in weights if key.endswith(("weight", "bias")))

    assert count(model.head) == head
    assert count(model.mask_head) == mask_head
    assert count(model.backbone) - count(model.backbone.bottom_up) == pyramid
    assert count(model) == whole
