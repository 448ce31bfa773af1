"""Weights of torchvision's classifiers in the backbone of a detector."""

import pytest
import torch
import torchvision
from detectron2.modeling import FPN
from torch import nn

from brloss_d2.checkpoint import Checkpointer
from brloss_d2.errors import InputError
from brloss_d2.modeling import TorchvisionBackbone


class Detector(nn.Module):
    def __init__(self, name: str, features: tuple[str, ...] = ("res3", "res4", "res5")):
        super().__init__()
        self.backbone = FPN(TorchvisionBackbone(name, features), list(features), 8)
        self.head = nn.Conv2d(8, 1, 1)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "densenet121", "regnet_y_400mf"])
def test_all_weights_of_the_classifier_are_taken(name, tmp_path):
    classifier = torchvision.models.get_model(name, weights=None)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    detector = Detector(name)
    Checkpointer(detector).load(str(tmp_path / "weights.pth"))
    expected = classifier.state_dict()
    for key, value in detector.backbone.bottom_up.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_a_backbone_without_the_last_stage_takes_what_it_has(tmp_path):
    classifier = torchvision.models.get_model("mobilenet_v3_small", weights=None)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    detector = Detector("mobilenet_v3_small", ("res2", "res3"))
    Checkpointer(detector).load(str(tmp_path / "weights.pth"))
    weight = detector.backbone.bottom_up.features[0][0].weight
    assert torch.equal(weight, classifier.features[0][0].weight)


def test_another_network_is_refused(tmp_path):
    classifier = torchvision.models.get_model("mobilenet_v3_large", weights=None)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="of another classifier of torchvision than backbone"):
        Checkpointer(Detector("mobilenet_v3_small")).load(str(tmp_path / "weights.pth"))
