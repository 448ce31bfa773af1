"""Temporarily monkeypatch attributes of third-party modules."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np


@contextmanager
def replaced(module: ModuleType, **names: Any) -> Iterator[None]:
    """Replace global names of a module within a `with` block.

    For packages without another way in: none of their code is copied, and their other users find
    them unchanged afterwards.

    Args:
        module: module to patch.
        **names: new values of global names, each of which must exist.

    Raises:
        AttributeError: the module has no such name.
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
