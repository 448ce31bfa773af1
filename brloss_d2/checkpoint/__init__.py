"""Weights and training state: where they come from, how they are saved."""

from brloss_d2.checkpoint.checkpointer import Checkpointer
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
    "from_mmdetection",
    "is_backbone_only",
    "local_file",
    "recognize_architecture",
    "to_mmdetection",
]
