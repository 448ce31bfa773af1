"""Weights of the published detectors in ours: complete, bit for bit, and with the same outputs."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes
from torch import Tensor, nn

from brloss_d2.checkpoint import (
    architectures,
    from_mmdetection,
    recognize_architecture,
    to_mmdetection,
)
from brloss_d2.errors import InputError
from tests.helpers.golden_models import Golden, available, load, weights
from tests.helpers.golden_rcnn import small_faster_rcnn

COCO = Path(__file__).parents[2] / "configs/coco"
PUBLISHED = {
    "faster_rcnn": ("faster_brs", "faster_rs", "faster_rcnn_alrp"),
    "cascade_rcnn": ("cascade_brs", "cascade_rs"),
    "mask_rcnn": ("mask_brs", "mask_rs"),
    "atss": ("atss_brs", "atss_rs", "atss_ap", "atss_bap", "atss_focal"),
    "paa": ("paa_brs", "paa_rs", "paa_ap", "paa_bap", "paa_focal"),
    "retinanet": ("retinanet_alrp", "retinanet_alrp_atss", "retinanet_ap"),
    "fovea": ("foveabox_alrp",),
    "yolact": ("yolact_rs", "yolact_baseline"),
    "solov2": ("solov2_rs", "solov2_focal"),
    "co_deformable_detr": ("co_deformable_detr", "brs_detr", "brs_detr_equal_sizes"),
}
GOLDEN = [(name, a) for a, names in PUBLISHED.items() for name in available(*names)]
LEAVES = [
    leaf
    for leaf in sorted(COCO.glob("*_R_*_FPN_brs_*.py"))
    if leaf.stem.partition("_R_")[0] in architectures()
]


def identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("name", "architecture"), GOLDEN)
def test_there_and_back(name: str, architecture: str) -> None:
    published = weights(name)
    expected = "atss" if architecture == "paa" else architecture
    assert recognize_architecture(published) == expected
    ours = from_mmdetection(published, architecture)
    assert len(ours) == len(published)
    same_names = {"fovea": "retinanet"}
    assert recognize_architecture(ours) == same_names.get(expected, expected)
    assert identical(to_mmdetection(ours, architecture), published)


@pytest.fixture(params=available("faster_brs", "faster_rs"))
def faster_rcnn(request: pytest.FixtureRequest) -> tuple[Golden, nn.Module]:
    loss = request.param.split("_")[1]
    model = instantiate(small_faster_rcnn(loss).model).eval()
    incompatible = model.load_state_dict(
        from_mmdetection(weights(request.param), "faster_rcnn"), strict=False
    )
    assert not incompatible.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in incompatible.missing_keys)
    return load(request.param), model


def test_back_from_the_model(faster_rcnn: tuple[Golden, nn.Module]) -> None:
    golden, model = faster_rcnn
    assert identical(to_mmdetection(model.state_dict(), "faster_rcnn"), weights(golden.name))


@torch.no_grad()
def test_the_model_computes_what_was_published(faster_rcnn: tuple[Golden, nn.Module]) -> None:
    golden, model = faster_rcnn
    features = model.backbone(golden.tensor("in/img"))
    for i, level in enumerate(features.values()):
        torch.testing.assert_close(level[:, :4], golden.tensor(f"fpn/{i}"), rtol=0, atol=5e-5)
    logits, deltas = model.proposal_generator.rpn_head(list(features.values()))
    for i in range(5):
        torch.testing.assert_close(logits[i], golden.tensor(f"rpn/cls{i}"), rtol=0, atol=2e-5)
        torch.testing.assert_close(deltas[i], golden.tensor(f"rpn/reg{i}"), rtol=0, atol=2e-5)
    heads, rois = model.roi_heads, golden.tensor("extra/rois")
    # The pooler takes the regions image by image.
    order = rois[:, 0].argsort(stable=True)
    boxes = [Boxes(rois[rois[:, 0] == i, 1:]) for i in range(2)]
    pooled = heads.box_pooler([features[f"p{i}"] for i in range(2, 6)], boxes)
    cls, reg = heads.box_predictor(heads.box_head(pooled))
    torch.testing.assert_close(cls, golden.tensor("extra/cls")[order], rtol=0, atol=2e-5)
    torch.testing.assert_close(reg, golden.tensor("extra/reg")[order], rtol=0, atol=2e-5)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.stem)
def test_every_model_of_ours_has_published_names(leaf: Path) -> None:
    state = instantiate(LazyConfig.load(str(leaf)).model).state_dict()
    architecture = leaf.stem.partition("_R_")[0]
    expected = {"paa": "atss", "fovea": "retinanet"}.get(architecture, architecture)
    assert recognize_architecture(state) == expected
    back = from_mmdetection(to_mmdetection(state, architecture), architecture)
    assert all(torch.equal(back[name], state[name]) for name in back)
    left = state.keys() - back.keys()
    assert all(name.endswith("num_batches_tracked") for name in left)


def test_names_of_deformable_convolutions() -> None:
    """Offsets belong to the convolution in mmdetection, to the block in detectron2."""
    cfg = LazyConfig.load(str(COCO / "faster_rcnn_R_101_DCN_FPN_brs_3x.py"))
    published = to_mmdetection(instantiate(cfg.model).state_dict(), "faster_rcnn")
    offsets = {name: w for name, w in published.items() if "conv_offset" in name}
    stages = {"layer2": 4, "layer3": 23, "layer4": 3}
    assert offsets.keys() == {
        f"backbone.{stage}.{block}.conv2.conv_offset.{tensor}"
        for stage, blocks in stages.items()
        for block in range(blocks)
        for tensor in ("weight", "bias")
    }
    assert offsets["backbone.layer3.22.conv2.conv_offset.weight"].shape == (108, 256, 3, 3)
    del published["backbone.layer3.22.conv2.conv_offset.bias"]
    with pytest.raises(InputError, match=r"1 missing \(backbone\.layer3\.22\.conv2\.conv_offset"):
        from_mmdetection(published, "faster_rcnn")


@pytest.mark.parametrize(
    ("file", "architecture", "owner"),
    [
        ("faster_brs", "faster_rcnn", "roi_heads.box_predictor.criterion"),
        ("retinanet_alrp", "retinanet", "criterion"),
    ],
)
def test_the_state_of_losses_stays_behind(file: str, architecture: str, owner: str) -> None:
    ours = from_mmdetection(weights(file), architecture)
    state = {**ours, f"{owner}.balancer.weight": torch.tensor(50.0)}
    assert identical(to_mmdetection(state, architecture), weights(file))


@pytest.mark.parametrize(
    "name",
    [
        "backbone.layer3.1.conv2.weight",
        "backbone.layer4.0.downsample.1.running_var",
        "neck.fpn_convs.3.conv.bias",
        "rpn_head.rpn_cls.bias",
        "roi_head.bbox_head.fc_cls.bias",
    ],
)
def test_a_missing_weight_is_named(name: str) -> None:
    state = weights("faster_brs")
    del state[name]
    with pytest.raises(InputError, match=rf"1 missing \({name}\), 0 left over \(none\)"):
        from_mmdetection(state, "faster_rcnn")


@pytest.mark.parametrize(
    "name",
    [
        "ema_backbone_conv1_weight",
        "backbone.layer1.0.downsample.0.weight",
        "backbone.layer5.0.conv1.weight",
        "roi_head.bbox_head.shared_fcs.2.weight",
        "roi_head.mask_head.upsample.weight",
    ],
)
def test_an_additional_weight_is_named(name: str) -> None:
    state = {**weights("faster_brs"), name: torch.zeros(1)}
    with pytest.raises(InputError, match=rf"0 missing \(none\), 1 left over \({name}\)"):
        from_mmdetection(state, "faster_rcnn")


def test_a_whole_block_too_few_or_too_many() -> None:
    state = weights("faster_brs")
    fewer = {n: w for n, w in state.items() if not n.startswith("backbone.layer2.1.")}
    with pytest.raises(
        InputError, match=r"10 missing \(backbone\.layer2\.1\.conv1\.weight.* 4 more"
    ):
        from_mmdetection(fewer, "faster_rcnn")
    # A third block makes it a ResNet-34, of which others are missing.
    more = {**state, "backbone.layer1.2.conv1.weight": torch.zeros(8, 8, 3, 3)}
    with pytest.raises(InputError, match=r"missing \(.*, 0 left over"):
        from_mmdetection(more, "faster_rcnn")


def test_other_architectures_are_told() -> None:
    state = weights("faster_brs")
    with pytest.raises(InputError, match=r"12 missing \(roi_head\.mask_head\.convs\.0"):
        from_mmdetection(state, "mask_rcnn")
    with pytest.raises(InputError, match=f"'ssd'; known ones: {', '.join(architectures())}"):
        from_mmdetection(state, "ssd")
    with pytest.raises(InputError, match=r"none of the architectures .* there are head\.fc\."):
        recognize_architecture({"backbone.conv1.weight": 0, "head.fc.weight": 0})


@pytest.mark.parametrize(
    "name",
    [
        "backbone.layer2.0.bn1.running_mean",
        "rpn_head.rpn_reg.bias",
        "roi_head.bbox_head.fc_cls.bias",
    ],
)
def test_a_misshapen_weight_is_named(name: str) -> None:
    state = weights("faster_brs")
    state[name] = torch.zeros(7)
    with pytest.raises(InputError, match=r"has the shape \(7,\), but .*weight \(.*asks for"):
        from_mmdetection(state, "faster_rcnn")
