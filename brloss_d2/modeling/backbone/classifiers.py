"""Classifiers of torchvision and timm as backbones, with maps named as those of a ResNet."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from importlib.util import find_spec

import torch
import torchvision
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from brloss_d2.checkpoint.classifiers import IN_BLOCKS
from brloss_d2.errors import InputError
from brloss_d2.modeling.backbone.batch_norm import fix_statistics
from brloss_d2.utils.suggest import did_you_mean

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
_SIDE = 256  # of the image that tells the strides, in pixels


class TorchvisionBackbone(Backbone):
    """Convolutional classifier of torchvision as a backbone.

    The weights keep their names, so that files of classifiers can be loaded.

    Args:
        name: MobileNet, EfficientNet, ConvNeXt, DenseNet or RegNet by its name in torchvision, such
            as `mobilenet_v3_large` or `regnet_y_400mf`.
        out_features: names of the feature maps, of res2, res3, res4 and res5 with the strides 4, 8,
            16 and 32. Each is the output of the last block of its stride.
        fixed_stats: whether batch normalization keeps its stored statistics in training, as is good
            with weights of ImageNet and few images per GPU; False to train from scratch.

    Raises:
        InputError: there is no such classifier, or it has no such feature map.

    Example:
        >>> backbone = TorchvisionBackbone("mobilenet_v3_small", ["res4", "res5"])
        >>> {name: (x.channels, x.stride) for name, x in backbone.output_shape().items()}
        {'res4': (48, 16), 'res5': (576, 32)}
    """

    def __init__(
        self, name: str, out_features: Sequence[str] = tuple(STRIDES), *, fixed_stats: bool = True
    ):
        super().__init__()
        known = list_models(torchvision.models, include=IN_BLOCKS)
        if name not in known:
            raise _unknown("torchvision", name, known)
        model = get_model(name, weights=None)
        for part in ("stem", "trunk_output", "features"):
            if hasattr(model, part):
                self.add_module(part, getattr(model, part))
        image = torch.zeros(1, 3, _SIDE, _SIDE, device="meta")
        shapes = [x.shape for x in deepcopy(self).to("meta").eval()._outputs(image)]
        maps = [(shape[1], _SIDE // shape[2]) for shape in shapes]
        self.places = _choose(self, name, maps, out_features)
        # Blocks after the last map would have no gradient.
        for module, block in list(self._blocks())[max(self.places.values()) + 1 :]:
            delattr(module, block)
        if fixed_stats:
            fix_statistics(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of images (N, 3, H, W) by name."""
        outputs = list(self._outputs(x))
        return {name: outputs[place] for name, place in self.places.items()}

    def _blocks(self) -> Iterator[tuple[nn.Module, str]]:
        """Yield the module that holds each block, and the name of the block there."""
        for part, module in self.named_children():
            if part == "stem":
                yield self, part
            else:
                yield from ((module, name) for name, _ in module.named_children())

    def _outputs(self, x: Tensor) -> Iterator[Tensor]:
        for module, name in self._blocks():
            x = getattr(module, name)(x)
            yield x


class TimmBackbone(Backbone):
    """Model of timm as a backbone; needs `pip install timm`.

    Args:
        name: name of a model with feature maps, such as `resnet50d` or `convnextv2_nano`.
        out_features: names of the feature maps, of res2, res3, res4 and res5 with the strides 4, 8,
            16 and 32.
        fixed_stats: whether batch normalization keeps its stored statistics in training.
        pretrained: whether the model is built with weights that timm downloads.

    Raises:
        InputError: timm is missing, it has no such model, or the model has no such feature map.
    """

    def __init__(
        self,
        name: str,
        out_features: Sequence[str] = tuple(STRIDES),
        *,
        fixed_stats: bool = True,
        pretrained: bool = False,
    ):
        super().__init__()
        if find_spec("timm") is None:
            raise InputError(
                f"The backbone {name} of timm needs the package timm: pip install timm"
            )
        import timm

        if not timm.is_model(name):
            raise _unknown("timm", name, timm.list_models())
        try:
            model = timm.create_model(name, features_only=True)
        except RuntimeError as error:
            raise InputError(f"timm's {name} has no feature maps: {error}") from error
        if getattr(model, "output_fmt", "NCHW") != "NCHW":
            raise InputError(f"timm's {name} has no feature maps (N, C, H, W): name another model.")
        info = model.feature_info
        maps = list(zip(info.channels(), info.reduction(), strict=True))
        self.places = _choose(self, name, maps, out_features)
        kept = sorted(self.places.values())
        try:
            self.body = timm.create_model(
                name, features_only=True, out_indices=kept, pretrained=pretrained
            )
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"timm cannot load weights of {name}: {error}. Without a network, set pretrained "
                "of the backbone to False."
            ) from error
        self.places = {feature: kept.index(place) for feature, place in self.places.items()}
        if fixed_stats:
            fix_statistics(self)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of images (N, 3, H, W) by name."""
        maps = self.body(x)
        return {feature: maps[place] for feature, place in self.places.items()}


def _unknown(library: str, name: str, known: Sequence[str]) -> InputError:
    hint = did_you_mean(name, known, cutoff=0.5) or f" Some names: {', '.join(known[:12])}."
    if name.startswith("res"):
        hint = " ResNets are those of the recipes, such as quick/atss_R_18_FPN_rs_300it."
    return InputError(f"{library} has no backbone {name!r} that can be used here.{hint}")


def _choose(
    backbone: Backbone, name: str, maps: Sequence[tuple[int, int]], out_features: Sequence[str]
) -> dict[str, int]:
    """Find the feature maps to return, and tell detectron2 their shapes.

    Args:
        backbone: backbone under construction.
        name: its name, for messages.
        maps: channels and stride of each map that it could return.
        out_features: names of those to return.

    Returns:
        The position in `maps` of each name, that of the last map with its stride.
    """
    last = {stride: place for place, (_, stride) in enumerate(maps)}
    known = [key for key, stride in STRIDES.items() if stride in last]
    for feature in out_features:
        if feature not in known:
            has = ", ".join(known) or "none"
            raise InputError(f"The backbone {name} has no feature map {feature!r}; it has {has}.")
    places = {feature: last[STRIDES[feature]] for feature in out_features}
    backbone._out_features = list(out_features)
    backbone._out_feature_channels = {f: maps[place][0] for f, place in places.items()}
    backbone._out_feature_strides = {f: maps[place][1] for f, place in places.items()}
    return places
