"""ImageNet weights of classifiers, for the backbones of detectors.

Swin transformers have the same names in the published files and in detectron2. ResNets do not:

torchvision                      detectron2
conv1, bn1                       stem.conv1, stem.conv1.norm
layer1.0.conv2, layer1.0.bn2     res2.0.conv2, res2.0.conv2.norm
layer1.0.downsample.0, .1        res2.0.shortcut, res2.0.shortcut.norm
fc                               none
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn

from brloss_d2.errors import InputError

# Names in torchvision of classifiers that consist of consecutive blocks, for `TorchvisionBackbone`.
IN_BLOCKS = ("mobilenet_*", "efficientnet_*", "convnext_*", "densenet*", "regnet_*")


@dataclass(frozen=True)
class ClassifierFamily:
    """Classifiers of one kind, and how their weights fit the backbone of a detector.

    Attributes:
        title: name in messages.
        marks: names that the state dict of each classifier of the family has.
        dropped: pattern of the names that no backbone has.
        renamed: patterns in the names of the file and what detectron2 has instead, in the order
            of replacement.
        stem: name in detectron2 of the first weight.
        compared: pattern of the names whose shapes have to fit; its first group is the stage.
        unit: plural for what has such a name.
        max_misfits: largest share of the compared tensors that may differ.
    """

    title: str
    marks: frozenset[str]
    dropped: re.Pattern[str]
    renamed: tuple[tuple[str, str], ...]
    stem: str
    compared: re.Pattern[str]
    unit: str
    max_misfits: float

    def backbone_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of a classifier as in detectron2, without its classification layer."""
        weights = {}
        for name, weight in state.items():
            if not self.dropped.fullmatch(name):
                for pattern, replacement in self.renamed:
                    name = re.sub(pattern, replacement, name)
                weights[name] = weight
        return weights

    def fit(self, weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> tuple[str, str]:
        """Find the backbone of a model, and check that weights fit it.

        Args:
            weights: result of `backbone_weights`.
            model: state dict of the detector.

        Returns:
            The prefix of the backbone's names in `model`, such as `backbone.bottom_up.`, and a
            phrase for the log.

        Raises:
            InputError: the model has no backbone of this family, or one of another size.
        """
        prefixes = [n[: -len(self.stem)] for n in model if f".{n}".endswith(f".{self.stem}")]
        if len(prefixes) != 1:
            raise InputError(
                f"The weights of a {self.title} need a model with one {self.title}; this one has "
                f"{len(prefixes) or 'none'}."
            )
        prefix = prefixes[0]
        wanted, offered = self._shapes(model, prefix), self._shapes(weights, "")
        # A model may lack the last stage, but no block of a stage that it has.
        stages = {self.compared.sub(r"\1", name) for name in wanted}
        offered = {n: x for n, x in offered.items() if self.compared.sub(r"\1", n) in stages}
        names = wanted | offered
        misfits = [name for name in names if wanted.get(name) != offered.get(name)]
        if len(misfits) > self.max_misfits * len(names):
            name = misfits[0]
            raise InputError(
                f"These weights are of another {self.title} than {prefix[:-1]}: {len(misfits)} of "
                f"{len(names)} {self.unit} differ, first {name}, {wanted.get(name, 'absent')} in "
                f"the model and {offered.get(name, 'absent')} in the file."
            )
        loaded = len(wanted) - len(misfits)
        return prefix, f"{loaded} of {len(wanted)} {self.unit} of {prefix[:-1]}"

    def _shapes(self, state: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the compared tensors below a prefix."""
        names = {name[len(prefix) :]: name for name in state if name.startswith(prefix)}
        return {
            short: tuple(state[name].shape)
            for short, name in names.items()
            if self.compared.fullmatch(short)
        }


def find_family(state: Mapping[str, object]) -> ClassifierFamily | None:
    """Return the family that a state dict has the names of; None if there is none."""
    return next((family for family in FAMILIES if state.keys() >= family.marks), None)


def preprocessing_mistakes(model: nn.Module) -> Iterator[str]:
    """Yield how a model differs from the training of torchvision's ResNets."""
    mean, std = getattr(model, "pixel_mean", None), getattr(model, "pixel_std", None)
    if std is not None and float(std.min()) < 10:
        yield "pixel_std is not (58.395, 57.12, 57.375)"
    if mean is not None and float(mean.flatten()[0]) < float(mean.flatten()[-1]):
        yield "pixel_mean is not (123.675, 116.28, 103.53): colors are RGB, not BGR"
    bottlenecks = [m for m in model.modules() if isinstance(m, BottleneckBlock)]
    if any(block.conv1.stride not in (1, (1, 1)) for block in bottlenecks):
        yield "stride_in_1x1 is True: the 3x3 convolution has the stride"


RESNET = ClassifierFamily(
    title="ResNet",
    marks=frozenset(
        {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"}
    ),
    dropped=re.compile(r"fc\..+|.+\.num_batches_tracked"),
    renamed=(
        (r"^(conv1|bn1)\.", r"stem.\1."),
        *((rf"^layer{stage}\.", f"res{stage + 1}.") for stage in range(1, 5)),
        (r"downsample\.0\.", "shortcut."),
        (r"downsample\.1\.", "shortcut.norm."),
        (r"\.bn(\d)\.", r".conv\1.norm."),
    ),
    stem="stem.conv1.weight",
    compared=re.compile(r"(stem|res\d)(?:\.\d+)?\.(conv\d|shortcut)\.weight"),
    unit="convolutions",
    max_misfits=0.1,  # a changed stem is less, another depth far more
)
SWIN = ClassifierFamily(
    title="Swin transformer",
    marks=frozenset({"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"}),
    # Attention masks depend on the size of the image. The last normalization belongs to the
    # classifier: each feature map of a detector has its own.
    dropped=re.compile(r"(head|norm)\..+|.+\.attn_mask"),
    renamed=(),
    stem="patch_embed.proj.weight",
    compared=re.compile(r"(patch_embed|layers)\..+"),
    unit="tensors",
    max_misfits=0.0,
)


def _torchvision(first: str, second: str, stage: str) -> ClassifierFamily:
    """Return a family of `TorchvisionBackbone`, which keeps the names of torchvision."""
    return ClassifierFamily(
        title="classifier of torchvision",
        marks=frozenset({first, second}),
        dropped=re.compile(r"(classifier|fc)\..+"),
        renamed=(),
        stem=first,
        compared=re.compile(rf"({stage})\..+"),
        unit="tensors",
        max_misfits=0.0,
    )


FAMILIES = (
    RESNET,
    SWIN,
    # MobileNet, EfficientNet and ConvNeXt
    _torchvision("features.0.0.weight", "features.0.1.weight", r"features\.\d+"),
    _torchvision("features.conv0.weight", "features.norm0.weight", r"features\.\w+"),  # DenseNet
    _torchvision("stem.0.weight", "stem.1.weight", r"stem|trunk_output\.\w+"),  # RegNet
)
