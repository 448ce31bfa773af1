"""Weights and training state: where they come from, how they are saved."""

from brloss_d2.checkpoint.checkpointer import Checkpointer
from brloss_d2.checkpoint.convert import Conversion, check_fit, convert_file
from brloss_d2.checkpoint.files import read_checkpoint, replacing
from brloss_d2.checkpoint.mmdetection import (
    ARCHITECTURES,
    from_mmdetection,
    recognize_architecture,
    to_mmdetection,
)
from brloss_d2.checkpoint.sources import is_backbone_only, local_file

__all__ = [
    "ARCHITECTURES",
    "Checkpointer",
    "Conversion",
    "check_fit",
    "convert_file",
    "from_mmdetection",
    "is_backbone_only",
    "local_file",
    "read_checkpoint",
    "recognize_architecture",
    "replacing",
    "to_mmdetection",
]
