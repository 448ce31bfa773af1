"""Weights and training state: sources, loading, saving, conversion."""

from brloss_d2.checkpoint.checkpointer import Checkpointer
from brloss_d2.checkpoint.contents import find_non_finite, fingerprint
from brloss_d2.checkpoint.files import read_checkpoint
from brloss_d2.checkpoint.mmdetection import (
    Conversion,
    check_fit,
    convert_file,
    from_mmdetection,
    recognize_architecture,
    to_mmdetection,
)
from brloss_d2.checkpoint.mmdetection_names import (
    Architecture,
    architectures,
    register_architecture,
)
from brloss_d2.checkpoint.safe_tensors import write_safetensors
from brloss_d2.checkpoint.sources import is_backbone_only, local_file, register_classifiers

__all__ = [
    "Architecture",
    "Checkpointer",
    "Conversion",
    "architectures",
    "check_fit",
    "convert_file",
    "find_non_finite",
    "fingerprint",
    "from_mmdetection",
    "is_backbone_only",
    "local_file",
    "read_checkpoint",
    "recognize_architecture",
    "register_architecture",
    "register_classifiers",
    "to_mmdetection",
    "write_safetensors",
]
