"""The golden files of whole models: where they are and how their arrays are read.

Some are shipped in tests/golden. Tests run over the full set where that is at hand: in the folder
that the environment variable BRLOSS_D2_GOLDEN names, or in shared/golden/models beside the clone.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor, nn

from brloss_d2.checkpoint.mmdetection import from_mmdetection, to_mmdetection
from brloss_d2.modeling import FixedStatsBatchNorm2d

SHIPPED = Path(__file__).parents[1] / "golden"
FULL = Path(
    os.environ.get("BRLOSS_D2_GOLDEN") or Path(__file__).parents[3] / "shared" / "golden" / "models"
)


class Golden:
    """One golden file; arrays are read when asked for and given as tensors of their own.

    Args:
        name: of the file, without its suffix.
    """

    def __init__(self, name: str):
        self.name = name
        self._arrays = np.load(path(name))
        self._read: dict[str, np.ndarray] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self._arrays.files if key.startswith(prefix)]

    def tensor(self, key: str) -> Tensor:
        if key not in self._read:
            self._read[key] = self._arrays[key]
        return torch.from_numpy(np.array(self._read[key]))

    def text(self, key: str) -> str:
        """A stored sentence."""
        return str(self._arrays[key])

    def names(self, key: str) -> list[str]:
        """A stored list of names."""
        return self._arrays[key].tolist()


def path(name: str) -> Path:
    """Of the golden file `name`, from the full set where it is there."""
    full = FULL / f"{name}.npz"
    return full if full.exists() else SHIPPED / f"{name}.npz"


def available(*names: str) -> list[str]:
    """Those of `names` whose file is at hand."""
    return [name for name in names if path(name).exists()]


@cache
def load(name: str) -> Golden:
    """The golden file `name`, kept for the tests to come."""
    return Golden(name)


def relative(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def small_resnet(norm=FixedStatsBatchNorm2d):
    """The ResNet-18 of the files: basic blocks, 8, 16, 32 and 64 channels, res2 frozen."""
    widths = (8, 8, 16, 32, 64)
    stages = [
        L(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=2,
            stride_per_block=[1 if i == 0 else 2, 1],
            in_channels=widths[i],
            out_channels=widths[i + 1],
            norm=norm,
        )
        for i in range(4)
    ]
    stem = L(BasicStem)(in_channels=3, out_channels=8, norm=norm)
    names = ["res2", "res3", "res4", "res5"]
    return L(ResNet)(stem=stem, stages=stages, out_features=names, freeze_at=2)


def weights(name: str) -> dict[str, Tensor]:
    """The published state dict of the file `name`."""
    golden = load(name)
    return {key.removeprefix("param/"): golden.tensor(key) for key in golden.keys("param/")}


def load_weights(model: nn.Module, golden: Golden, architecture: str) -> None:
    """The weights of the file, under our names; all of them have to fit."""
    state = from_mmdetection(weights(golden.name), architecture)
    missing, unexpected = model.load_state_dict(state, strict=False)
    counters = [name for name in missing if name.endswith("num_batches_tracked")]
    assert (missing, unexpected) == (counters, [])


def images(golden: Golden) -> list[Tensor]:
    """The normalized images without padding."""
    sizes = golden.tensor("in/img_shape").tolist()
    return [x[:, :h, :w] for x, (h, w) in zip(golden.tensor("in/img"), sizes, strict=True)]


def ground_truth(golden: Golden, empty: tuple[int, ...] = ()) -> list[Instances]:
    """The objects of each image; those numbered in `empty` have none."""
    folder, sizes, classes = "in", "img_shape", "gt_labels"
    if "input/image_hw" in golden:
        folder, sizes, classes = "input", "image_hw", "gt_classes"
    objects = []
    for i, size in enumerate(golden.tensor(f"{folder}/{sizes}").tolist()):
        found = Instances(tuple(size), gt_boxes=Boxes(golden.tensor(f"{folder}/gt_boxes{i}")))
        found.gt_classes = golden.tensor(f"{folder}/{classes}{i}").long()
        if f"in/gt_masks{i}" in golden:
            found.gt_masks = BitMasks(golden.tensor(f"in/gt_masks{i}").bool())
        objects.append(found[:0] if i in empty else found)
    return objects


def differences_of_gradients(
    model: nn.Module, golden: Golden, architecture: str, case: str = ""
) -> tuple[dict[str, float], dict[str, float]]:
    """Compare the gradients in a model; the same parameters must be frozen.

    Args:
        architecture: as `from_mmdetection` has it.
        case: of the arrays, such as "nogt1/".

    Returns:
        By our names the relative difference of each gradient that the file has, and of the norm of
        every gradient. Norms below a thousandth of the median are compared with that: some
        gradients, as that of a bias all logits share, are nothing but rounding.
    """
    names = _published_names(golden, architecture)
    rows = {name: i for i, name in enumerate(golden.names("gradnorm_names"))}
    frozen = golden.tensor("gradnorm").isnan()
    norms = golden.tensor(f"{case}gradnorm")
    smallest = 1e-3 * norms[~frozen].median().item()
    by_gradient, by_norm = {}, {}
    for name, parameter in model.named_parameters():
        row = rows[names[name]]
        assert parameter.requires_grad != frozen[row], name
        if not parameter.requires_grad:
            continue
        norm, expected = parameter.grad.norm().item(), norms[row].item()
        by_norm[name] = abs(norm - expected) / max(expected, smallest, 1e-12)
        if f"{case}grad/{names[name]}" in golden:
            by_gradient[name] = relative(parameter.grad, golden.tensor(f"{case}grad/{names[name]}"))
    return by_gradient, by_norm


def assert_gradients(
    model: nn.Module, golden: Golden, architecture: str, tolerance: float = 1e-4
) -> None:
    """Compare the gradients in a model with files that store them under published names.

    Args:
        architecture: as `to_mmdetection` has it.
        tolerance: relative, of the norms and of the gradients that the file has.
    """
    # What has no gradient is NaN.
    named = {name: torch.full(x.shape, torch.nan) for name, x in model.state_dict().items()}
    named |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ours = to_mmdetection(named, architecture)
    names = golden.names("grad_norm/names")
    for name, expected in zip(names, golden.tensor("grad_norm/values"), strict=True):
        if expected == -1:  # frozen
            assert ours[name].isnan().all(), name
        else:
            norm = ours[name].norm()
            torch.testing.assert_close(norm, expected, rtol=tolerance, atol=1e-5, msg=name)
    for key in golden.keys("grad/"):
        assert relative(ours[key.removeprefix("grad/")], golden.tensor(key)) < tolerance, key


def differences_of_detections(
    golden: Golden, found: Instances, name: str
) -> tuple[float, float, Tensor]:
    """Compare detections as a set: equal numbers and classes, every expected one found once.

    Args:
        name: of the arrays, such as "test0".

    Returns:
        The largest difference of the coordinates (pixels) and of the scores, and the (D,) row of
        `found` that each expected detection is.
    """
    boxes, scores, labels = (golden.tensor(f"{name}/{x}") for x in ("boxes", "scores", "labels"))
    assert len(found) == len(boxes)
    distance = torch.cdist(boxes, found.pred_boxes.tensor, p=torch.inf)
    gap = (scores[:, None] - found.scores).abs()
    other = labels[:, None] != found.pred_classes
    rows = (distance + 100 * gap).masked_fill(other, torch.inf).argmin(1)
    assert len(rows.unique()) == len(rows)
    assert torch.equal(found.pred_classes[rows], labels)
    every = torch.arange(len(rows))
    return distance[every, rows].max().item(), gap[every, rows].max().item(), rows


def _published_names(golden: Golden, architecture: str) -> dict[str, str]:
    state = weights(golden.name)
    published = {id(tensor): name for name, tensor in state.items()}
    ours = from_mmdetection(state, architecture)
    return {name: published[id(tensor)] for name, tensor in ours.items()}
