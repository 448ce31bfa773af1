"""Give other people's modules other parts for the time of a call."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np


@contextmanager
def replaced(module: ModuleType, **names: Any) -> Iterator[None]:
    """Let global names of a module mean something else in a `with` block.

    For packages that leave no other way in: nothing of them is copied, and whoever else uses them
    finds them unchanged.
    """
    before = {name: getattr(module, name) for name in names}
    try:
        vars(module).update(names)
        yield
    finally:
        vars(module).update(before)


def numpy_with(**names: Any) -> ModuleType:
    """Return numpy with names that its current releases lack, for packages that still use them."""
    numpy = ModuleType("numpy")
    vars(numpy).update(names, __getattr__=lambda name: getattr(np, name))
    return numpy
