"""Files for what `train.init_checkpoint` may name: paths, URLs, torchvision and Swin models."""

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from torchvision.models import get_model_weights, list_models

from brloss_d2.checkpoint.classifiers import IN_BLOCKS, find_family
from brloss_d2.checkpoint.contents import read_weights
from brloss_d2.checkpoint.files import check_file
from brloss_d2.errors import InputError
from brloss_d2.utils.files import replacing
from brloss_d2.utils.terminal import silenced

TORCHVISION = "torchvision://"
SWIN = "swin://"
_SWIN_URL = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/{}.pth"
_SWIN_MODELS = (
    "swin_tiny_patch4_window7_224",
    "swin_small_patch4_window7_224",
    "swin_base_patch4_window7_224",
    "swin_base_patch4_window12_384",
    "swin_base_patch4_window7_224_22k",
    "swin_base_patch4_window12_384_22k",
    "swin_large_patch4_window7_224_22k",
    "swin_large_patch4_window12_384_22k",
)
# Of torchvision: those that detectron2's ResNet and `TorchvisionBackbone` build.
_FAMILIES = ("resnet*", "resnext*", "wide_res*", *IN_BLOCKS)
_PATIENCE = 60  # seconds without a byte
_ADVICE = (
    "Without a network use a local file (train.init_checkpoint=FILE), or start from scratch "
    '(train.init_checkpoint="").'
)


def is_backbone_only(path: str) -> bool:
    """Return whether the name of a checkpoint says that it is a classifier and no detector."""
    return path.startswith((TORCHVISION, SWIN))


def local_file(path: str) -> str:
    """Return a file that exists, downloaded if necessary. Reading it compares its checksums.

    Args:
        path: path of a file (detectron2's `?matching_heuristics=True` may follow), URL that
            detectron2 knows, `torchvision://` and the name of a classifier, or `swin://` and the
            name of a published Swin transformer.

    Raises:
        InputError: there is no such file or name, it is cut off or of another kind, or the download
            failed or is damaged.
    """
    if path.startswith(TORCHVISION):
        model = path.removeprefix(TORCHVISION)
        _check_known(TORCHVISION, model, list_models(torchvision.models, include=_FAMILIES))
        # Published detectors started from the weights that torchvision calls V1.
        weights = get_model_weights(model)
        return _cached(getattr(weights, "IMAGENET1K_V1", weights.DEFAULT).url)
    if path.startswith(SWIN):
        model = path.removeprefix(SWIN)
        _check_known(SWIN, model, _SWIN_MODELS)
        return _cached(_SWIN_URL.format(model))
    name, question, query = path.removeprefix("file://").partition("?")
    if "://" in name:
        try:
            with _timeout(), silenced(("iopath.common.download",)):
                file = PathManager.get_local_path(name)
        except Exception as error:  # the handlers of detectron2 raise almost anything
            raise _download_failed(name, error) from error
        if file == name:  # nobody knows the scheme
            raise InputError(
                f"Cannot read {name}: expected a file, http://..., https://..., detectron2://..., "
                "torchvision://... or swin://..."
            )
        return _checked(name, file) + question + query
    check_file(name)
    return name + question + query


class ClassifierHandler(PathHandler):
    """Let detectron2's own checkpointer read `torchvision://` and `swin://` names.

    The local file holds the weights under detectron2's names, to be matched by their endings.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [TORCHVISION, SWIN]

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        file = local_file(path)
        renamed = f"{file.removesuffix('.pth')}.detectron2.pth"
        if force or not os.path.isfile(renamed):
            _, state = read_weights(file)
            family = find_family(state)
            if family is None:
                raise InputError(f"{file} holds no weights of a classifier that is known.")
            content = {"model": family.backbone_weights(state), "matching_heuristics": True}
            with replacing(renamed) as temporary:
                torch.save(content, temporary)
        return renamed


def register_classifiers() -> None:
    """Register `ClassifierHandler` with detectron2's `PathManager`. Idempotent."""
    PathManager.register_handler(ClassifierHandler(), allow_override=True)


def _check_known(scheme: str, model: str, known: Sequence[str]) -> None:
    if model not in known:
        raise InputError(f"There is no {scheme}{model}; known names: {', '.join(known)}.")


def _cached(url: str) -> str:
    """Return the file of a URL in the folder of torch.hub, downloaded if necessary."""
    name = os.path.basename(urlparse(url).path)
    file = os.path.join(torch.hub.get_dir(), "checkpoints", name)
    checksum = re.search(r"-([a-f0-9]{8,})\.", name)  # torch.hub's convention
    if not os.path.isfile(file):
        try:
            os.makedirs(os.path.dirname(file), exist_ok=True)
            with _timeout():
                torch.hub.download_url_to_file(url, file, checksum and checksum[1])
        except (OSError, RuntimeError, HTTPException) as error:
            raise _download_failed(url, error) from error
    return file if checksum else _checked(url, file)


@contextmanager
def _timeout() -> Iterator[None]:
    """Let downloads fail that stand still: neither detectron2 nor torch has a time limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download_failed(url: str, error: Exception) -> InputError:
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    return InputError(f"Cannot download {url}: {reason}. {_ADVICE}")


@cache
def _checked(url: str, file: str) -> str:
    """Return a downloaded file; remove it if it is damaged or of another kind.

    Raises:
        InputError: the file cannot be used.
    """
    try:
        check_file(file, checksums=True)
    except InputError as error:
        os.remove(file)  # otherwise it would be taken for the download forever
        raise InputError(
            f"The download of {url} cannot be used and was removed; try again. {error}"
        ) from error
    return file
