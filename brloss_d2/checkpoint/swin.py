"""ImageNet weights of the published Swin transformers; detectron2's has the same names."""

from collections.abc import Mapping

from torch import Tensor

from brloss_d2.errors import InputError

_MARKS = {"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"}
_PATCHES = "patch_embed.proj.weight"
# The normalization before the classifier is no backbone's: each map of a detector has its own.
_CLASSIFIER = ("head.", "norm.")


def is_swin_classifier(state: Mapping[str, object]) -> bool:
    """Whether a state dict has the names of the published classifiers."""
    return state.keys() >= _MARKS


def swin_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the classifier, and the attention masks, which depend on the size of the image."""
    return {
        name: weight
        for name, weight in state.items()
        if not name.startswith(_CLASSIFIER) and not name.endswith(".attn_mask")
    }


def fit_swin(weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> tuple[str, str]:
    """Find the Swin transformer that weights belong to, and check that they are made for it.

    Args:
        weights: the result of `swin_backbone`.
        model: the state dict of the detector.

    Returns:
        The prefix of its names in `model`, such as `backbone.`, and a sentence for the log.

    Raises:
        InputError: the model has no Swin transformer, or another one.
    """
    prefixes = [name[: -len(_PATCHES)] for name in model if f".{name}".endswith(f".{_PATCHES}")]
    if len(prefixes) != 1:
        raise InputError(
            "The weights of a Swin transformer need a model with one of these; "
            f"this one has {len(prefixes) or 'none'}."
        )
    prefix = prefixes[0]
    wanted = _shapes({name: w for name, w in model.items() if name.startswith(prefix)}, prefix)
    offered = _shapes(weights, "")
    misfits = [name for name in wanted | offered if wanted.get(name) != offered.get(name)]
    if misfits:
        name = misfits[0]
        raise InputError(
            f"These weights are of another Swin transformer than {prefix[:-1]}: {len(misfits)} of "
            f"{len(wanted | offered)} tensors differ, first {name}, {wanted.get(name, 'absent')} "
            f"in the model and {offered.get(name, 'absent')} in the file."
        )
    return prefix, f"all {len(wanted)} tensors of {prefix[:-1]}"


def _shapes(state: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[int, ...]]:
    """Of patch embedding and layers; what comes after them differs from task to task."""
    names = {name[len(prefix) :]: name for name in state}
    return {
        short: tuple(state[name].shape)
        for short, name in names.items()
        if short.startswith(("patch_embed.", "layers."))
    }
