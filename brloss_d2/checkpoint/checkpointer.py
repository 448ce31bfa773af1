"""Load and save checkpoints."""

import logging
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from brloss_d2.checkpoint.classifiers import RESNET, SWIN, find_family, preprocessing_mistakes
from brloss_d2.checkpoint.contents import (
    check_usable,
    find_non_finite,
    of_another_model,
    read_weights,
    without_wrapper,
)
from brloss_d2.checkpoint.sources import local_file
from brloss_d2.errors import InputError
from brloss_d2.utils.files import replacing
from brloss_d2.utils.text import first_few, printable

logger = logging.getLogger(__name__)
_MAX_ITERATION = 2**53


class Checkpointer(DetectionCheckpointer):
    """Checkpointer of detectron2 with safe reading and atomic saving.

    In addition it

    * runs no code stored in a file, and compares its checksums;
    * finds the weights in files of other programs, behind `state_dict`, `module.` and the like;
    * reads torchvision's ResNets and the published Swin transformers;
    * replaces files atomically: a crash while saving leaves the previous checkpoint as it was;
    * refuses weights that are not finite, and a checkpoint that would leave the whole model at
      random weights.

    Args:
        model: module whose parameters and buffers are loaded and saved.
        save_dir: folder to save to.
        strict: whether to refuse a checkpoint that lacks a parameter of the model, or has one of
            another shape; right for evaluation and for resuming, wrong for fine-tuning.
        classes: names of the classes by label, saved as `classes` in each file; none if unknown.
        **parts: other objects with `state_dict` and `load_state_dict`.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        strict: bool = False,
        classes: Sequence[str] = (),
        **parts: Any,
    ):
        super().__init__(model, save_dir, **parts)
        self.strict, self.classes = strict, list(classes)
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
        # detectron2 parses the path as a URL: one that starts with "/" has no scheme.
        rest = super().load(path and os.path.abspath(local_file(path)), [])
        names = self.checkpointables if checkpointables is None else checkpointables
        damaged = ""
        for name in [name for name in names if name in rest]:
            try:
                self.checkpointables[name].load_state_dict(rest.pop(name))
            except InputError:
                raise
            except Exception as error:  # a damaged state raises almost anything
                self.logger.debug("State of %s: %r", name, error)
                damaged = name
        iteration = rest.get("iteration", 0)
        if names and (type(iteration) is not int or not -1 <= iteration < _MAX_ITERATION):
            damaged = f"iteration {printable(iteration, length=20)}"
        if damaged:
            raise InputError(
                f"The state of the training in {path} is damaged, or of another config "
                f"({damaged}): resume from an older checkpoint, or start again from its weights, "
                f"train.init_checkpoint={path} without --resume."
            )
        return rest

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
        known = {"classes": self.classes} if self.classes else {}
        content = {"model": self.model.state_dict(), **known, **kwargs}
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
        if filename.endswith(".pyth"):
            raise InputError(f"{filename} is a checkpoint of pycls, which is not supported.")
        content, weights = read_weights(filename)
        checkpoint = {key: value for key, value in content.items() if key not in weights}
        # The part of the path behind "?", which detectron2 has removed.
        if "matching_heuristics" in parse_qs(self._parsed_url_during_load.query):
            checkpoint["matching_heuristics"] = True
        if not checkpoint.get("matching_heuristics"):
            known = self.model.state_dict().keys() | RESNET.marks | SWIN.marks
            first = next(iter(weights))
            weights = without_wrapper(weights, known)
            if wrapper := first.removesuffix(next(iter(weights))):
                self.logger.info("Names of weights are taken without %r in front", wrapper)
        family = find_family(weights)
        if family is not None:
            weights = family.backbone_weights(weights)
        return {**checkpoint, "model": weights, "classifier_family": family, "file": filename}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        prefix, weights, file = "", checkpoint["model"], checkpoint.pop("file")
        family = checkpoint.pop("classifier_family")
        if family is not None:
            prefix, loaded = family.fit(weights, self.model.state_dict())
            weights = {prefix + name: weight for name, weight in weights.items()}
            self.logger.info("Loading %s from the weights of a classifier", loaded)
        check_usable(file, weights, self.model.state_dict())
        checkpoint["model"] = dict(weights)
        if family is RESNET:
            for mistake in preprocessing_mistakes(self.model):
                self.logger.warning("torchvision's weights were trained differently: %s", mistake)
        incompatible = super()._load_model(checkpoint)
        missing = {*incompatible.missing_keys}
        # The file of a backbone lacks the rest of the detector by nature: no need to report it.
        names = [name for name in incompatible.missing_keys if name.startswith(prefix)]
        incompatible.missing_keys[:] = names
        # What detectron2 only warns of may mean that the model keeps random weights.
        parameters = [name for name, _ in self.model.named_parameters()]
        absent = {*names, *(name for name, *_ in incompatible.incorrect_shapes)}
        lost = [name for name in parameters if name in absent]
        if lost and (self.strict or len(lost) == len(parameters)):
            raise of_another_model(file, weights, parameters, lost)
        others = missing | absent | weights.keys()
        matched = [name for name in parameters if name not in others]
        if matched and checkpoint.get("matching_heuristics"):
            text = "%d of %d parameters take weights of other names, as detectron2 matches them: %s"
            logger.info(text, len(matched), len(parameters), first_few(matched, count=3))
        if incompatible.incorrect_shapes:  # one line for all, instead of one for each
            other = [name for name, *_ in incompatible.incorrect_shapes]
            text = "Parts of other shapes, as for other classes, start from scratch: %s"
            self.logger.warning(text, first_few(other, count=12))
            incompatible.incorrect_shapes.clear()
            incompatible.missing_keys[:] = [name for name in names if name not in other]
        return incompatible
