"""Load and save checkpoints."""

import os
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from brloss_d2.checkpoint.classifiers import RESNET, find_family, preprocessing_mistakes
from brloss_d2.checkpoint.files import read_array_pickle, read_checkpoint
from brloss_d2.checkpoint.sources import local_file
from brloss_d2.checkpoint.state import find_non_finite
from brloss_d2.errors import InputError
from brloss_d2.utils.files import replacing


class Checkpointer(DetectionCheckpointer):
    """Checkpointer of detectron2 with safe reading and atomic saving.

    In addition it

    * runs no code stored in a file;
    * reads torchvision's ResNets and the published Swin transformers;
    * replaces files atomically: a crash while saving leaves the previous checkpoint as it was;
    * refuses a checkpoint that would leave the whole model at random weights.

    Args:
        model: module whose parameters and buffers are loaded and saved.
        save_dir: folder to save to.
        strict: whether to refuse a checkpoint that lacks a parameter of the model, or has one of
            another shape; right for evaluation and for resuming, wrong for fine-tuning.
        **parts: other objects with `state_dict` and `load_state_dict`.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, strict: bool = False, **parts: Any):
        super().__init__(model, save_dir, **parts)
        self.strict = strict
        self._never_finite = find_non_finite(dict(self.model.named_buffers()))

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint.

        Args:
            path: source of the weights, see `sources.local_file`; "" loads none.
            checkpointables: names of the parts to load; None loads all.

        Returns:
            What the checkpoint holds in addition to the model and the loaded parts.

        Raises:
            InputError: the checkpoint is missing, damaged, or of another model.
        """
        return super().load(path and local_file(path), checkpointables)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the model, all parts and `kwargs` as `<save_dir>/<name>.pth`, to resume from.

        All processes have to call it, since a part may gather their states; the first one writes.
        """
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        self.save_weights(name, **parts, **kwargs)
        if self.save_dir and self.save_to_disk:
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **kwargs: Any) -> None:
        """Save the model and `kwargs` as `<save_dir>/<name>.pth`, in the first process.

        Raises:
            InputError: weights, averages or buffers are not finite.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        file = os.path.join(self.save_dir, f"{name}.pth")
        content = {"model": self.model.state_dict(), **kwargs}
        broken = find_non_finite(content, except_for=self._never_finite)
        if broken:
            raise InputError(
                f"Training has diverged: {len(broken)} tensors of the model are NaN or infinite, "
                f"first {broken[0]}. {file} is not saved. Continue from an earlier checkpoint, if "
                "there is one, or start again, with a lower learning rate (optimizer.lr) or "
                "clipped gradients (train.clip_grad_norm=5)."
            )
        self.logger.info("Saving checkpoint to %s", file)
        with replacing(file) as temporary:
            torch.save(content, temporary)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record the checkpoint that `--resume` starts from."""
        tag = os.path.join(self.save_dir, "last_checkpoint")
        with replacing(tag) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        # detectron2 itself would run the code in a .pkl or .pyth file.
        if filename.endswith(".pkl"):
            return read_array_pickle(filename)
        if filename.endswith(".pyth"):
            raise InputError(f"{filename} is a checkpoint of pycls, which is not supported.")
        checkpoint = super()._load_file(filename)
        family = find_family(checkpoint["model"])
        if family is not None:
            weights = family.backbone_weights(checkpoint["model"])
            checkpoint.update(model=weights, classifier_family=family)
        return checkpoint

    def _torch_load(self, f: str) -> dict[str, Any]:
        loaded = read_checkpoint(f)
        if isinstance(loaded.get("state_dict"), dict):
            raise InputError(
                f"{f} is a checkpoint of mmdetection. Convert it first: brloss-convert {f} "
                "NEW_FILE, or python tools/convert_checkpoint.py in a clone."
            )
        return loaded

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        prefix = ""
        family = checkpoint.pop("classifier_family", None)
        if family is not None:
            weights = checkpoint["model"]
            prefix, loaded = family.fit(weights, self.model.state_dict())
            checkpoint["model"] = {prefix + name: weight for name, weight in weights.items()}
            self.logger.info("Loading %s from the weights of a classifier", loaded)
        if family is RESNET:
            for mistake in preprocessing_mistakes(self.model):
                self.logger.warning("torchvision's weights were trained differently: %s", mistake)
        incompatible = super()._load_model(checkpoint)
        # The file of a backbone lacks the rest of the detector by nature: no need to report it.
        names = [name for name in incompatible.missing_keys if name.startswith(prefix)]
        incompatible.missing_keys[:] = names
        # What detectron2 only warns of may mean that the model keeps random weights.
        parameters = [name for name, _ in self.model.named_parameters()]
        absent = {*names, *(name for name, *_ in incompatible.incorrect_shapes)}
        lost = [name for name in parameters if name in absent]
        if lost and (self.strict or len(lost) == len(parameters)):
            raise InputError(
                f"The checkpoint is of another model: {len(lost)} of {len(parameters)} parameters "
                f"are absent or of another shape, first {lost[0]}. Use the config of its run "
                "(config.yaml next to it)."
            )
        return incompatible
