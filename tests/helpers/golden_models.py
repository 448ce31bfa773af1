"""Golden files of whole models: how to find and read them and how to compare with them.

Some of them are in tests/golden. Tests use the full set if it is available: in the folder of the
environment variable BRLOSS_D2_GOLDEN, or in shared/golden/models next to the clone.
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
    """One golden file, whose arrays are read on first access and returned as copies.

    Args:
        name: name of the file, without suffix.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._arrays = np.load(path(name))
        self._read: dict[str, np.ndarray] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def keys(self, prefix: str = "") -> list[str]:
        """Return the names of arrays that start with `prefix`."""
        return [key for key in self._arrays.files if key.startswith(prefix)]

    def tensor(self, key: str) -> Tensor:
        """Return an array as a new tensor."""
        if key not in self._read:
            self._read[key] = self._arrays[key]
        return torch.from_numpy(np.array(self._read[key]))

    def text(self, key: str) -> str:
        """Return a stored text."""
        return str(self._arrays[key])

    def names(self, key: str) -> list[str]:
        """Return a stored list of names."""
        return self._arrays[key].tolist()


def path(name: str) -> Path:
    """Return the path of a golden file, in the full set if that has it."""
    full = FULL / f"{name}.npz"
    return full if full.exists() else SHIPPED / f"{name}.npz"


def available(*names: str) -> list[str]:
    """Return those of `names` whose file exists."""
    return [name for name in names if path(name).exists()]


@cache
def load(name: str) -> Golden:
    """Open a golden file; other tests get the same object."""
    return Golden(name)


def relative(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference divided by the norm of the expected tensor."""
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def small_resnet(norm=FixedStatsBatchNorm2d):
    """Return the ResNet-18 of the files: 8, 16, 32 and 64 channels, frozen up to res2."""
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
    """Return the published state dict of a golden file."""
    golden = load(name)
    return {key.removeprefix("param/"): golden.tensor(key) for key in golden.keys("param/")}


def load_weights(model: nn.Module, golden: Golden, architecture: str) -> None:
    """Load the weights of a file into a model; all have to fit, counters and balances aside."""
    state = from_mmdetection(weights(golden.name), architecture)
    missing, unexpected = model.load_state_dict(state, strict=False)
    own = [x for x in missing if x.endswith("num_batches_tracked") or ".balancer." in x]
    assert (missing, unexpected) == (own, [])


def images(golden: Golden) -> list[Tensor]:
    """Return the normalized images without padding, (3, H, W) each."""
    sizes = golden.tensor("in/img_shape").tolist()
    return [x[:, :h, :w] for x, (h, w) in zip(golden.tensor("in/img"), sizes, strict=True)]


def ground_truth(golden: Golden, empty: tuple[int, ...] = ()) -> list[Instances]:
    """Return the objects of each image; images whose index is in `empty` have none."""
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
    """Compare the gradients in a model with those of a file; assert the same frozen parameters.

    Args:
        model: model after a backward pass.
        golden: the file.
        architecture: architecture as in `from_mmdetection`.
        case: prefix of the arrays, such as "nogt1/".

    Returns:
        Relative differences by our names, of the gradients that the file has and of the norms of
        all gradients. Differences of norms are relative to at least a thousandth of the median
        norm: some gradients, as that of a bias that all logits share, are nothing but rounding.
    """
    state = weights(golden.name)
    published = {id(tensor): name for name, tensor in state.items()}
    ours = from_mmdetection(state, architecture)
    names = {name: published[id(tensor)] for name, tensor in ours.items()}
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
    model: nn.Module, golden: Golden, architecture: str, tolerance: float = 1e-4, case: str = ""
) -> None:
    """Compare the gradients in a model with a file that has them under published names.

    Args:
        model: model after a backward pass.
        golden: the file.
        architecture: architecture as in `to_mmdetection`.
        tolerance: largest relative difference of norms and of gradients.
        case: prefix of the arrays, such as "balanced/".
    """
    # NaN stands for no gradient.
    named = {name: torch.full(x.shape, torch.nan) for name, x in model.state_dict().items()}
    named |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    ours = to_mmdetection(named, architecture)
    names = golden.names("grad_norm/names")
    for name, expected in zip(names, golden.tensor(f"{case}grad_norm/values"), strict=True):
        if expected == -1:  # frozen
            assert ours[name].isnan().all(), name
        else:
            norm = ours[name].norm()
            torch.testing.assert_close(norm, expected, rtol=tolerance, atol=1e-5, msg=name)
    for key in golden.keys(f"{case}grad/"):
        assert relative(ours[key.removeprefix(f"{case}grad/")], golden.tensor(key)) < tolerance, key


def differences_of_detections(
    golden: Golden, found: Instances, name: str
) -> tuple[float, float, Tensor]:
    """Compare detections as sets; assert equal numbers and classes, each expected one found once.

    Args:
        golden: the file.
        found: detections.
        name: prefix of the arrays, such as "test0".

    Returns:
        Largest difference of coordinates in pixels, largest difference of scores, and the index in
        `found` of each expected detection (D,).
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
