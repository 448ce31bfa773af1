"""Read checkpoint files without running code stored in them."""

import os
import pickle
import re
from typing import Any

import torch

from brloss_d2.errors import InputError

# What dictionaries of arrays and numbers consist of; NumPy 2 renamed a module.
_ARRAY_PARTS = {
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}
_OTHER_OBJECT = re.compile(r"GLOBAL (\S+) was not an allowed global")


def read_checkpoint(file: str) -> dict[str, Any]:
    """Load a checkpoint saved by torch to the CPU, without running pickled code.

    Raises:
        InputError: the file is missing or damaged, holds objects other than weights and plain
            values, or is no dictionary.
    """
    if not os.path.isfile(file):
        raise InputError(f"Checkpoint missing: {file}")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        if match := _OTHER_OBJECT.search(str(error)):
            reason = (
                f"in addition to weights it holds an object that needs {match[1]}, and such "
                "objects can run code. If you trust its origin, load it with torch.load(FILE, "
                "weights_only=False), and save only its weights."
            )
        else:
            line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            reason = f"{line}. It is damaged, or no checkpoint."
        raise InputError(f"Cannot read checkpoint {file}: {reason}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"Checkpoint {file}: expected a state dict, got {type(loaded).__name__}.")
    return loaded


def read_array_pickle(file: str) -> dict[str, Any]:
    """Load pickled arrays: weights of detectron2's model zoo, of Caffe2 or Detectron (.pkl).

    Returns:
        The dictionary that detectron2's checkpointer makes of such a file: `model`, and
        `matching_heuristics` if names have to be matched.

    Raises:
        InputError: the file is missing or damaged, or holds objects other than dictionaries,
            arrays and plain values.
    """
    if not os.path.isfile(file):
        raise InputError(f"Checkpoint missing: {file}")
    try:
        with open(file, "rb") as opened:
            loaded = _ArrayUnpickler(opened, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise InputError(f"Cannot read checkpoint {file}: {error}.") from error
    if not isinstance(loaded, dict):
        raise InputError(f"Checkpoint {file}: expected a dict, got {type(loaded).__name__}.")
    if "model" in loaded and "__author__" in loaded:
        return loaded
    arrays = loaded.get("blobs", loaded)
    arrays = {name: value for name, value in arrays.items() if not name.endswith("_momentum")}
    return {"model": arrays, "__author__": "Caffe2", "matching_heuristics": True}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that finds only the parts of arrays, so that no pickle can call a function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, and such objects can run code")
        return super().find_class(module, name)
