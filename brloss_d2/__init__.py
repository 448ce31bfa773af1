"""Ranking-based losses for object detection and instance segmentation, on Detectron2."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`brloss_d2.predict` and `brloss_d2.model_zoo`, loaded when used: they need detectron2, which
    the losses do without."""
    if name == "predict":
        return import_module("brloss_d2.prediction").predict
    if name == "model_zoo":
        return import_module("brloss_d2.model_zoo")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
