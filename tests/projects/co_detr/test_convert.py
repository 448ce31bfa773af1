"""Published checkpoints of Co-Deformable-DETR, BRS-DETR and Co-DINO under our names, and back."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import Tensor, nn

from brloss_d2.checkpoint import (
    check_fit,
    convert_file,
    from_mmdetection,
    recognize_architecture,
    to_mmdetection,
)
from brloss_d2.errors import InputError
from tests.helpers.golden_models import available, weights

CONFIGS = Path(__file__).parents[3] / "projects/co_detr/configs"
NAME, DINO = "co_deformable_detr", "co_dino"
# Numbers of tensors of the golden files, without counters.
TENSORS = {
    "co_deformable_detr": (NAME, 304),
    "brs_detr": (NAME, 302),
    "brs_detr_equal_sizes": (NAME, 302),
    "co_dino": (DINO, 302),
    "brs_co_dino": (DINO, 300),
}
HEAD_BIAS = "query_head.transformer.head_pos_embed.weight"


def identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Model with a ResNet-50 and a centerness branch."""
    return detector("R_50_focal")


@pytest.fixture
def published(model: nn.Module) -> dict[str, Tensor]:
    return to_mmdetection(model.state_dict(), NAME)


def detector(leaf: str, name: str = "co_deformable_detr") -> nn.Module:
    cfg = LazyConfig.load(str(CONFIGS / f"{name}_{leaf}_1x.py"))
    return instantiate(cfg.model)


@pytest.mark.parametrize("file", available(*TENSORS))
def test_there_and_back(file: str) -> None:
    published, (name, tensors) = weights(file), TENSORS[file]
    assert recognize_architecture(published) == name
    ours = from_mmdetection(published, name)
    assert len(ours) == len(published) == tensors
    assert recognize_architecture(ours) == name
    assert identical(to_mmdetection(ours, name), published)


@pytest.mark.parametrize(
    ("leaf", "tensors"),
    [("R_50_focal", 623), ("R_50_brs", 621), ("swin_t_brs", 543)],
)
def test_every_weight_of_ours_has_a_published_name(leaf: str, tensors: int) -> None:
    model = detector(leaf)
    state = model.state_dict()
    published = to_mmdetection(state, NAME)
    assert len(published) == tensors
    assert recognize_architecture(published) == NAME
    ours = from_mmdetection(published, NAME)
    assert identical(ours, state)
    check_fit(ours, model)
    heads = {name.partition(".")[0] for name in published}
    assert heads == {"backbone", "neck", "query_head", "rpn_head", "roi_head", "bbox_head"}
    assert any("atss_centerness" in name for name in published) == leaf.endswith("focal")


@pytest.mark.parametrize(("loss", "tensors"), [("focal", 621), ("brs", 619)])
def test_every_weight_of_co_dino_has_a_published_name(
    tmp_path: Path, loss: str, tensors: int
) -> None:
    model = detector(f"R_50_{loss}", "co_dino_5scale")
    state, file = model.state_dict(), tmp_path / "file.pth"
    torch.save({"model": state}, file)
    conversion = convert_file(str(file))
    assert (conversion.architecture, conversion.is_ours) == (DINO, False)
    published = conversion.weights
    assert len(published) == tensors
    pairs = {
        "neck.convs.3.conv.weight": "neck.convs.3.weight",
        "query_head.transformer.decoder.ref_point_head.2.bias": (
            "query_head.decoder.ref_point_head.layers.1.bias"
        ),
        "query_head.transformer.query_embed.weight": "query_head.content.weight",
        "query_head.label_embedding.weight": "query_head.denoising.label_embedding.weight",
        "bbox_head.0.scales.5.scale": "dense_head.head.scales.5.scale",
    }
    for old, new in pairs.items():
        assert torch.equal(published[old], state[new]), old
    ours = from_mmdetection(published, DINO)
    assert identical(ours, state)
    check_fit(ours, model)


@pytest.mark.parametrize("part", ["mask_head", "mask_iou_head"])
def test_co_dino_with_masks_is_refused(part: str) -> None:
    published = {**weights("brs_co_dino"), f"{part}.0.convs.0.conv.weight": torch.zeros(1)}
    assert recognize_architecture(published) == DINO
    with pytest.raises(InputError, match=rf"1 left over \({part}\.0"):
        from_mmdetection(published, DINO)


def test_the_other_detector_is_refused(published: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"neck\.convs\.3\.conv\.weight"):
        from_mmdetection(published, DINO)
    with pytest.raises(InputError, match=r"head_pos_embed\.weight"):
        from_mmdetection(weights("brs_co_dino"), NAME)


def test_names_by_example(published: dict[str, Tensor], model: nn.Module) -> None:
    """Layers whose order or index could be confused."""
    state = model.state_dict()
    pairs = {
        "backbone.layer4.2.bn3.running_var": "backbone.res5.2.conv3.norm.running_var",
        "neck.extra_convs.0.gn.weight": "neck.extra.0.norm.weight",
        "query_head.transformer.decoder.layers.5.norms.2.bias": (
            "query_head.decoder.layers.5.norm3.bias"
        ),
        "query_head.transformer.encoder.layers.1.ffns.0.layers.0.0.weight": (
            "query_head.encoder.layers.1.ffn.linear1.weight"
        ),
        "query_head.transformer.pos_feats_norm.1.weight": (
            "query_head.custom.embeddings.1.feat_norm.weight"
        ),
        "query_head.reg_branches.6.4.weight": "query_head.box_branches.6.layers.2.weight",
        "roi_head.0.bbox_head.fc_cls.bias": "roi_heads.box_predictor.cls_score.bias",
        "bbox_head.0.reg_convs.0.conv.weight": "dense_head.head.box_tower.0.weight",
    }
    for old, new in pairs.items():
        assert published[old].data_ptr() == state[new].data_ptr(), old
    assert published["query_head.reg_branches.6.4.weight"].shape == (4, 256)


@pytest.mark.parametrize("columns", [1, 256])
def test_both_forms_of_the_head_embedding(
    published: dict[str, Tensor], tmp_path: Path, columns: int
) -> None:
    state = {**published, HEAD_BIAS: torch.rand(2, columns)}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "published.pth")
    conversion = convert_file(str(tmp_path / "published.pth"))
    assert conversion.is_ours and conversion.architecture == NAME
    found = conversion.weights["query_head.custom.head_bias"]
    assert torch.equal(found, state[HEAD_BIAS])
    told = [w for w in conversion.warnings if f"model.query_head.head_bias_dim={columns}" in w]
    assert len(told) == (0 if columns == 1 else 1)


@pytest.mark.parametrize("leaf", ["R_50_brs", "swin_t_focal"])
def test_the_direction_is_recognized(tmp_path: Path, leaf: str) -> None:
    """The direction is found although the weights of a Swin have the same names in both."""
    state, file = detector(leaf).state_dict(), tmp_path / "file.pth"
    torch.save({"model": state}, file)
    back = convert_file(str(file))
    assert not back.is_ours
    torch.save(back.checkpoint(), file)
    again = convert_file(str(file))
    assert again.is_ours and identical(again.weights, state)


@pytest.mark.parametrize(
    "name",
    [
        HEAD_BIAS,
        "query_head.transformer.decoder.layers.2.attentions.0.attn.in_proj_bias",
        "query_head.cls_branches.6.weight",
        "bbox_head.0.scales.4.scale",
        "bbox_head.0.atss_centerness.bias",
        "backbone.layer3.5.bn1.bias",
    ],
)
def test_a_missing_weight_is_named(published: dict[str, Tensor], name: str) -> None:
    del published[name]
    with pytest.raises(InputError, match=rf"1 missing \({name}\), 0 left over \(none\)"):
        from_mmdetection(published, NAME)


@pytest.mark.parametrize(
    "name",
    [
        "query_head.cls_branches.7.weight",
        "query_head.transformer.aux_pos_trans.2.weight",
        "bbox_head.0.cls_convs.1.conv.weight",
        "roi_head.1.bbox_head.fc_cls.weight",
    ],
)
def test_an_additional_weight_is_named(published: dict[str, Tensor], name: str) -> None:
    published[name] = torch.zeros(1)
    with pytest.raises(InputError, match=rf"0 missing \(none\), 1 left over \({name}\)"):
        from_mmdetection(published, NAME)


def test_shapes_that_contradict_each_other_are_named(published: dict[str, Tensor]) -> None:
    published["query_head.cls_branches.2.bias"] = torch.zeros(79)
    with pytest.raises(InputError, match=r"class_branches\.2\.bias has the shape \(79,\)"):
        from_mmdetection(published, NAME)
