"""Turn what `train.init_checkpoint` may be into a file on this machine."""

import os
import re
from urllib.parse import urlparse

import torch
from detectron2.utils.file_io import PathManager
from torchvision.models import get_model_weights, list_models

from brloss_d2.errors import InputError

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
_ADVICE = (
    "Without a network pass a local file (train.init_checkpoint=FILE), or start from scratch "
    '(train.init_checkpoint="").'
)


def is_backbone_only(path: str) -> bool:
    """Whether a checkpoint holds an image classifier and no detector, as far as its name tells."""
    return path.startswith((TORCHVISION, SWIN))


def local_file(path: str) -> str:
    """Return a file that exists, downloaded if need be.

    Args:
        path: a file (detectron2's `?matching_heuristics=True` may follow), a URL that detectron2
            knows, `torchvision://` and the name of a ResNet, or `swin://` and the name of a
            published Swin transformer.

    Raises:
        InputError: there is no such file or name, or the download failed.
    """
    if path.startswith(TORCHVISION):
        return _torchvision_file(path[len(TORCHVISION) :])
    if path.startswith(SWIN):
        return _swin_file(path[len(SWIN) :])
    name, question, query = path.partition("?")
    if "://" in name:
        return _downloaded(name) + question + query
    if not os.path.isfile(name):
        raise InputError(f"Checkpoint missing: {name}")
    return path


def _downloaded(url: str) -> str:
    try:
        return PathManager.get_local_path(url)
    except (OSError, RuntimeError) as error:
        raise InputError(f"Cannot download {url}: {error}. {_ADVICE}") from error


def _torchvision_file(model: str) -> str:
    known = sorted(list_models(include=["resnet*", "resnext*", "wide_resnet*"]))
    if model not in known:
        raise InputError(f"There is no {TORCHVISION}{model}; known names: {', '.join(known)}.")
    # V1 are the weights that published detectors started from.
    return _cached(get_model_weights(model).IMAGENET1K_V1.url)


def _swin_file(model: str) -> str:
    if model not in _SWIN_MODELS:
        raise InputError(f"There is no {SWIN}{model}; known names: {', '.join(_SWIN_MODELS)}.")
    return _cached(_SWIN_URL.format(model))


def _cached(url: str) -> str:
    """The file of a URL in the folder where torch.hub keeps weights, downloaded if need be."""
    name = os.path.basename(urlparse(url).path)
    file = os.path.join(torch.hub.get_dir(), "checkpoints", name)
    if not os.path.isfile(file):
        _download(url, file)
    return file


def _download(url: str, file: str) -> None:
    checksum = re.search(r"-([a-f0-9]{8,})\.", os.path.basename(file))  # torch.hub's convention
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        torch.hub.download_url_to_file(url, file, checksum and checksum[1])
    except (OSError, RuntimeError) as error:
        raise InputError(f"Cannot download {url} to {file}: {error}. {_ADVICE}") from error
