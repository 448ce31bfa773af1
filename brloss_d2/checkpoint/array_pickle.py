"""Detectron2's pickled weights (.pkl), read without running code of theirs."""

import os
import pickle
from typing import Any

from brloss_d2.errors import InputError

# All that dictionaries of arrays and numbers need; NumPy 2 renamed a module.
_ALLOWED = {
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


class _ArrayUnpickler(pickle.Unpickler):
    """Finds nothing but the parts of arrays, so that a pickle cannot name a function to call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, and such objects can run code")
        return super().find_class(module, name)


def read_array_pickle(file: str) -> dict[str, Any]:
    """Load weights of detectron2's model zoo, of Caffe2 or Detectron: a pickled dict of arrays.

    Returns:
        What detectron2's checkpointer makes of such a file: `model`, and `matching_heuristics`
        where names have to be matched.

    Raises:
        InputError: the file is damaged, or holds anything but dicts, arrays and plain values.
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
