import pytest
import torch
import torchvision
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from brloss_d2 import model_zoo
from brloss_d2.errors import InputError
from brloss_d2.modeling import FixedStatsBatchNorm2d, TimmBackbone, TorchvisionBackbone

# Last node of each stride, read off torchvision's definitions.
NODES = {
    "mobilenet_v2": ("features.3", "features.6", "features.13", "features.18"),
    "mobilenet_v3_large": ("features.3", "features.6", "features.12", "features.16"),
    "efficientnet_b0": ("features.2", "features.3", "features.5", "features.8"),
    "convnext_tiny": ("features.1", "features.3", "features.5", "features.7"),
    "regnet_y_400mf": tuple(f"trunk_output.block{i}" for i in (1, 2, 3, 4)),
    "densenet121": (
        *("features.denseblock1", "features.denseblock2", "features.denseblock3"),
        "features.norm5",
    ),
}
FEATURES = ("res2", "res3", "res4", "res5")


@pytest.mark.parametrize("name", NODES)
def test_maps_are_those_of_the_classifier(name):
    torch.manual_seed(0)
    classifier = torchvision.models.get_model(name, weights=None).eval()
    backbone = TorchvisionBackbone(name).eval()
    missing, unexpected = backbone.load_state_dict(classifier.state_dict(), strict=False)
    assert not missing
    assert all(key.startswith(("classifier.", "fc.")) for key in unexpected)
    nodes = dict(zip(NODES[name], FEATURES, strict=True))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = create_feature_extractor(classifier, nodes)(images)
        found = backbone(images)
    assert list(found) == list(FEATURES)
    for key, shape in backbone.output_shape().items():
        assert torch.equal(found[key], expected[key])
        assert found[key].shape == (2, shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_statistics_stay_in_training_unless_asked():
    images = torch.randn(2, 3, 64, 64)
    for fixed in (True, False):
        backbone = TorchvisionBackbone("mobilenet_v3_small", fixed_stats=fixed).train()
        backbone(images)
        layers = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(isinstance(layer, FixedStatsBatchNorm2d) == fixed for layer in layers)
        moved = [bool(layer.running_mean.any()) for layer in layers]
        assert not any(moved) if fixed else all(moved)


def test_blocks_behind_the_last_map_are_left_out():
    backbone = TorchvisionBackbone("mobilenet_v3_small", ["res3", "res4"]).train()
    sum(x.sum() for x in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert backbone.output_shape().keys() == {"res3", "res4"}


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        ("mobilnet_v2", FEATURES, "can be used here. Did you mean mobilenet_v2"),
        ("vit_b_16", FEATURES, "torchvision has no backbone 'vit_b_16'"),
        ("mobilenet_v2", ["res6"], "no feature map 'res6'; it has res2, res3, res4, res5"),
    ],
)
def test_mistakes_are_told(name, features, message):
    with pytest.raises(InputError, match=message):
        TorchvisionBackbone(name, features)


@pytest.mark.parametrize(
    "config",
    [
        *("quick/retinanet_R_18_FPN_rs_300it", "quick/faster_rcnn_R_18_FPN_brs_300it"),
        *("quick/yolact_R_18_rs_300it", "co_detr/quick/co_dino_R_18_focal_300it"),
    ],
)
def test_a_detector_detects_with_another_backbone(config):
    model = model_zoo.set_backbone(model_zoo.get_config(config).model, "mobilenet_v3_small")
    detector = instantiate(model).eval()
    assert detector.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    image = {"image": torch.zeros(3, 65, 97, dtype=torch.uint8), "height": 65, "width": 97}
    with torch.no_grad():
        assert detector([image])[0]["instances"].image_size == (65, 97)


def test_a_model_without_a_pyramid_is_refused():
    with pytest.raises(
        InputError, match="backbone=mobilenet_v2: this model has no feature pyramid"
    ):
        model_zoo.set_backbone(OmegaConf.create({"backbone": {}}), "mobilenet_v2")


def test_timm():
    pytest.importorskip("timm")
    backbone = TimmBackbone("resnet10t", ["res3", "res5"])
    maps = backbone(torch.zeros(1, 3, 64, 96))
    assert {key: (x.channels, x.stride) for key, x in backbone.output_shape().items()} == {
        "res3": (128, 8),
        "res5": (512, 32),
    }
    assert {key: tuple(x.shape) for key, x in maps.items()} == {
        "res3": (1, 128, 8, 12),
        "res5": (1, 512, 2, 3),
    }
    with pytest.raises(InputError, match=r"swin_tiny.* has no feature maps"):
        TimmBackbone("swin_tiny_patch4_window7_224")
    with pytest.raises(InputError, match=r"no backbone 'resnt50'. Did you mean resnet50"):
        TimmBackbone("resnt50")


def test_timm_is_optional(monkeypatch):
    monkeypatch.setattr("brloss_d2.modeling.backbone.classifiers.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install timm"):
        TimmBackbone("resnet10t")
