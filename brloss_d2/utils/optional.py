"""Packages that only some users have."""

from importlib import import_module
from typing import Any

from brloss_d2.errors import InputError


def import_optional(module: str, extra: str) -> Any:
    """Import a module of a package that brloss_d2 does not install by itself.

    Args:
        module: name of the module.
        extra: optional dependencies of `pyproject.toml` that contain the package.

    Raises:
        InputError: the package is missing.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"The package {module.partition('.')[0]} is missing or does not work ({error}): "
            f'pip install "brloss_d2[{extra}]".'
        ) from error
