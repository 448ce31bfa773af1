"""Load and save checkpoints."""

import os
from collections.abc import Callable
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from brloss_d2.checkpoint.array_pickle import read_array_pickle
from brloss_d2.checkpoint.files import read_checkpoint, replacing
from brloss_d2.checkpoint.sources import local_file
from brloss_d2.checkpoint.swin import fit_swin, is_swin_classifier, swin_backbone
from brloss_d2.checkpoint.torchvision_resnet import (
    detectron2_names,
    fit_backbone,
    is_torchvision_resnet,
    preprocessing_mistakes,
)
from brloss_d2.errors import InputError


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer that unpickles no code, reads torchvision's ResNets and
    the published Swin transformers, and replaces files whole, so that a crash while saving leaves
    the last good checkpoint."""

    def __init__(self, model: nn.Module, save_dir: str = "", *, strict: bool = False, **parts: Any):
        """
        Args:
            model: its parameters and buffers are loaded and saved.
            save_dir: the folder to save to.
            strict: refuse a checkpoint that lacks a parameter of the model, or has one of
                another shape; right for evaluation and for resuming, wrong for fine-tuning.
            **parts: other objects with `state_dict` and `load_state_dict`.
        """
        super().__init__(model, save_dir, **parts)
        self.strict = strict

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint, see `sources.local_file` for what `path` may be; "" loads none.

        Returns:
            What the checkpoint holds beside the model and the loaded parts.

        Raises:
            InputError: the checkpoint is missing, damaged, or of another model.
        """
        return super().load(path and local_file(path), checkpointables)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the model, all parts and `kwargs` as `<save_dir>/<name>.pth`, to resume from.

        To be called in all processes, whose states a part may gather; the first one writes.
        """
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        self.save_weights(name, **parts, **kwargs)
        if self.save_dir and self.save_to_disk:
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **kwargs: Any) -> None:
        """Save the model and `kwargs` as `<save_dir>/<name>.pth`, in the first process."""
        if not self.save_dir or not self.save_to_disk:
            return
        file = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", file)
        with replacing(file) as temporary:
            torch.save({"model": self.model.state_dict(), **kwargs}, temporary)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note which checkpoint `--resume` starts from."""
        with (
            replacing(os.path.join(self.save_dir, "last_checkpoint")) as temporary,
            open(temporary, "w") as file,
        ):
            file.write(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        # detectron2 itself would run what a .pkl or .pyth file names.
        if filename.endswith(".pkl"):
            return read_array_pickle(filename)
        if filename.endswith(".pyth"):
            raise InputError(f"{filename} is a checkpoint of pycls, which is not supported.")
        checkpoint = super()._load_file(filename)
        if is_torchvision_resnet(checkpoint["model"]):
            checkpoint["model"] = detectron2_names(checkpoint["model"])
            checkpoint["is_torchvision"] = True
        elif is_swin_classifier(checkpoint["model"]):
            checkpoint["model"] = swin_backbone(checkpoint["model"])
            checkpoint["is_swin"] = True
        return checkpoint

    def _torch_load(self, f: str) -> dict[str, Any]:
        loaded = read_checkpoint(f)
        if isinstance(loaded.get("state_dict"), dict):
            raise InputError(
                f"{f} is a checkpoint of mmdetection. Convert it first: "
                f"python tools/convert_checkpoint.py {f} NEW_FILE"
            )
        return loaded

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        prefix = ""
        if checkpoint.pop("is_torchvision", False):
            prefix = self._place_resnet(checkpoint)
        elif checkpoint.pop("is_swin", False):
            prefix = self._place(checkpoint, fit_swin)
        incompatible = super()._load_model(checkpoint)
        # A backbone's file lacks the rest of the detector by nature: that is no news.
        names = [name for name in incompatible.missing_keys if name.startswith(prefix)]
        incompatible.missing_keys[:] = names
        self._check(incompatible)
        return incompatible

    def _place_resnet(self, checkpoint: dict[str, Any]) -> str:
        prefix = self._place(checkpoint, fit_backbone)
        for mistake in preprocessing_mistakes(self.model):
            self.logger.warning("Unlike what torchvision's weights were trained with, %s", mistake)
        return prefix

    def _place(self, checkpoint: dict[str, Any], fit: Callable[..., tuple[str, str]]) -> str:
        """Put a classifier's weights under the names of the model's backbone; return its prefix."""
        weights = checkpoint["model"]
        prefix, found = fit(weights, self.model.state_dict())
        checkpoint["model"] = {prefix + name: weight for name, weight in weights.items()}
        self.logger.info("Loading %s from the weights of a classifier", found)
        return prefix

    def _check(self, incompatible: Any) -> None:
        """Refuse what detectron2 only warns of: silently random weights."""
        parameters = [name for name, _ in self.model.named_parameters()]
        wrong = [name for name, _, _ in incompatible.incorrect_shapes]
        absent = set(incompatible.missing_keys) | set(wrong)
        lost = [name for name in parameters if name in absent]
        if lost and (self.strict or len(lost) == len(parameters)):
            raise InputError(
                f"The checkpoint is of another model: {len(lost)} of {len(parameters)} parameters "
                f"are absent or of another shape, first {lost[0]}. Use the config of its run "
                "(config.yaml beside it)."
            )
