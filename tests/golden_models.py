"""The golden files of whole models: where they are and how their arrays are read.

Some are shipped in tests/golden. The environment variable BRLOSS_D2_GOLDEN names the folder of the
full set where that is at hand; then tests run over all of it.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

SHIPPED = Path(__file__).parent / "golden"
FULL = Path(os.environ.get("BRLOSS_D2_GOLDEN", SHIPPED))


class Golden:
    """One golden file; arrays are read when asked for and given as tensors of their own.

    Args:
        name: of the file, without its suffix.
    """

    def __init__(self, name: str):
        self.name = name
        self._arrays = np.load(path(name))
        self._read: dict[str, np.ndarray] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self._arrays.files if key.startswith(prefix)]

    def tensor(self, key: str) -> torch.Tensor:
        if key not in self._read:
            self._read[key] = self._arrays[key]
        return torch.from_numpy(np.array(self._read[key]))

    def text(self, key: str) -> str:
        """A stored sentence."""
        return str(self._arrays[key])

    def names(self, key: str) -> list[str]:
        """A stored list of names."""
        return self._arrays[key].tolist()


def path(name: str) -> Path:
    """Of the golden file `name`, from the full set where it is there."""
    full = FULL / f"{name}.npz"
    return full if full.exists() else SHIPPED / f"{name}.npz"


def available(*names: str) -> list[str]:
    """Those of `names` whose file is at hand."""
    return [name for name in names if path(name).exists()]


@cache
def load(name: str) -> Golden:
    """The golden file `name`, kept for the tests to come."""
    return Golden(name)


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-12)).item()
