"""Read checkpoint files without running code stored in them, and notice damage."""

import codecs
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter
from typing import Any, NoReturn

import numpy as np
import torch

from brloss_d2.checkpoint.safe_tensors import SUFFIX, read_safetensors
from brloss_d2.errors import InputError
from brloss_d2.utils.files import kind_of_content
from brloss_d2.utils.text import decoded, first_few, printable

# Archives that are no checkpoints, by the names in them.
_FOREIGN_ARCHIVES = (
    (r".+/constants\.pkl", "a TorchScript program", "name the checkpoint it was made from"),
    (
        r"(.+/)?(archive_format|serialized_exported_program\.json)",
        "a program exported by torch.export",
        "name the checkpoint it was made from",
    ),
    (r".+\.npy", "an archive of NumPy arrays", "expected a checkpoint of PyTorch"),
)
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What dictionaries of arrays and numbers consist of; NumPy 2 renamed a module.
_ARRAY_PARTS: dict[str, Any] = {
    "_codecs.encode": codecs.encode,
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    **{
        f"numpy.{core}.{function}": reduced[0]
        for core in ("core", "_core")
        for function, reduced in (
            ("multiarray._reconstruct", np.zeros(1).__reduce__()),
            ("multiarray.scalar", np.float64().__reduce__()),
            ("numeric._frombuffer", np.zeros(1).__reduce_ex__(5)),
        )
    },
}


class _Placeholder:
    """Stands for an object next to the weights that nobody needs; accepts any state."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# Settings and statistics that DETR, mmdetection and others save next to the weights.
_UNUSED = (
    "argparse.Namespace",
    "builtins.getattr",  # of methods of a HistoryBuffer
    "mmengine.logging.history_buffer.HistoryBuffer",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib._local.PosixPath",
)


def _under(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
    """Make what torch takes for the object of that name; before torch 2.6 it has to bear it."""
    module, _, own = name.rpartition(".")
    names = {"__module__": module, "__name__": own, "__qualname__": own}
    if part is _Placeholder:
        return type(own, (_Placeholder,), names)
    alias = partial(part)
    vars(alias).update(names)
    return alias


_SAFE: list[Any] = [
    *(_under(name, part) for name, part in _ARRAY_PARTS.items() if name.count(".") > 1),
    *(part for name, part in _ARRAY_PARTS.items() if name.count(".") == 1),
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    *(_under(name, _Placeholder) for name in _UNUSED),
]


def read_checkpoint(file: str) -> dict[str, Any]:
    """Load a checkpoint of torch, safetensors or pickled arrays to the CPU; run no code.

    Args:
        file: path of the file. Checkpoints are zip archives, whose checksums are compared. Older
            ones, and the `.pkl` files of detectron2's model zoo, of Caffe2 or Detectron, have
            none. A `.safetensors` file needs that package.

    Returns:
        The dictionary in the file. That of pickled arrays is what detectron2's checkpointer makes
        of it: `model`, and `matching_heuristics` if names have to be matched. Objects that are
        neither weights nor plain values are placeholders.

    Raises:
        InputError: the file is missing, damaged or of another kind, or has objects that can run
            code.
    """
    check_file(file, checksums=True)
    with open(file, "rb") as opened:
        start = opened.read(len(_TORCH_LEGACY))
    by_torch = start == _TORCH_LEGACY or start.startswith(b"PK")
    if file.endswith(SUFFIX):
        loaded: Any = _read_safetensors(file)
    else:
        loaded = _read_torch(file) if by_torch else _read_arrays(file)
    if not isinstance(loaded, dict):
        _refuse(
            file,
            f"it holds a {type(loaded).__name__}, but a checkpoint is a dictionary of weights by "
            "name, such as model.state_dict()",
        )
    return loaded


def check_file(file: str, *, checksums: bool = False) -> None:
    """Check that a file is an undamaged checkpoint, as far as this shows without loading it.

    Args:
        file: path of the file.
        checksums: whether to read all of the file and compare its checksums, which torch does not.

    Raises:
        InputError: it is missing, damaged or of another kind.
    """
    if not os.path.exists(file):
        raise InputError(f"Checkpoint missing: {file}")
    if not os.path.isfile(file):  # a pipe would wait forever
        _refuse(file, "it is no file; name a file, such as model_final.pth in the folder of a run")
    try:
        with open(file, "rb") as opened:
            start = opened.read(512)
            opened.seek(-1 if start else 0, os.SEEK_END)
            last = opened.read()
    except OSError as error:
        _refuse(file, f"{error.strerror}")
    if not start:
        _refuse(file, "it is empty; download or copy it again")
    kind, cure = kind_of_content(start, "a checkpoint of PyTorch")
    if start.startswith(b"PK"):
        _check_archive(file, checksums=checksums)
    elif file.endswith(SUFFIX):
        pass  # its reader notices if the weights are not all there
    elif kind:
        _refuse(file, f"it is {kind}; {cure}")
    elif start.startswith(_TORCH_LEGACY):
        pass  # the weights follow the pickle: torch sees whether there are enough
    elif not (start.startswith(b"\x80") or file.endswith(".pkl")):
        text = decoded(start, "ignore").strip()
        is_text = text and all(char.isprintable() or char.isspace() for char in text)
        begin = f"a text that begins with '{printable(text[:30])}'"
        kind = begin if is_text else "no checkpoint of PyTorch"
        _refuse(file, f"it is {kind}, or damaged; download or copy it again")
    elif last != pickle.STOP:
        _refuse_damaged(file, "its end is missing")


def _check_archive(file: str, *, checksums: bool) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            for pattern, kind, cure in _FOREIGN_ARCHIVES:
                if any(re.fullmatch(pattern, name) for name in names):
                    _refuse(file, f"it is {kind}; {cure}")
            if not any(re.fullmatch("[^/]+/data.pkl", name) for name in names):
                inside = first_few(names) or "nothing"
                _refuse(file, f"it is an archive of {inside}; unpack it and name a checkpoint")
            # A few packed bytes may expand to all of the memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                _refuse(file, "it is compressed, which torch.save never does; save it again")
            if sum(entry.file_size for entry in entries) > os.path.getsize(file):
                _refuse_damaged(file, "its parts overlap")
            # torch.serialization.set_crc32_options(False) writes none.
            if checksums and any(entry.CRC for entry in entries) and (bad := archive.testzip()):
                _refuse_damaged(file, f"the checksum of {printable(bad)} in it differs")
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises almost anything
        unfinished = "not a zip file" in str(error)
        sign = "its end is missing" if unfinished else "its parts contradict each other"
        _refuse_damaged(file, sign)


@contextmanager
def _safe_globals() -> Iterator[None]:
    """Let checkpoints contain `_SAFE`, too; as `torch.serialization.safe_globals` of torch 2.5."""
    known = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(_SAFE)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(known)


def _read_torch(file: str) -> Any:
    try:
        with _safe_globals():
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        if match := re.search(r"GLOBAL (\S+)", str(error)):
            # Half a name of torch is damage, too.
            module, _, rest = match[1].partition(".")
            with suppress(AttributeError):
                if module != "torch" or attrgetter(rest)(torch):
                    _refuse_code(file, match[1])
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            _refuse(file, "it needs more memory than there is, or is damaged")
        _refuse_damaged(file, "its content contradicts itself")


def _read_safetensors(file: str) -> Any:
    try:
        return read_safetensors(file)
    except InputError:
        raise
    except Exception as error:  # of the package, about the header
        _refuse_damaged(file, printable(error, length=80))


def _read_arrays(file: str) -> Any:
    try:
        with open(file, "rb") as opened:
            loaded = _ArrayUnpickler(opened, encoding="latin1").load()
    except InputError:
        raise
    except Exception:  # a damaged pickle raises almost anything
        _refuse_damaged(file, "it is no complete pickle")
    if not isinstance(loaded, dict) or ("model" in loaded and "__author__" in loaded):
        return loaded
    arrays = loaded.get("blobs", loaded)
    if not isinstance(arrays, dict):
        return arrays
    arrays = {name: value for name, value in arrays.items() if not str(name).endswith("_momentum")}
    return {"model": arrays, "__author__": "Caffe2", "matching_heuristics": True}


class _ArrayUnpickler(pickle._Unpickler):
    """Unpickler that finds only the parts of arrays, so that no pickle can call a function.

    The one written in C allocates gigabytes for a few bytes that name the last of many objects.
    """

    def __init__(self, file: Any, *, encoding: str):
        super().__init__(file, encoding=encoding)
        self.name = file.name

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ARRAY_PARTS:
            _refuse_code(self.name, f"{module}.{name}")
        return _ARRAY_PARTS[f"{module}.{name}"]


def _refuse(file: str, reason: str) -> NoReturn:
    # Not even in a traceback: torch advises to load such files with weights_only=False.
    raise InputError(f"Cannot read checkpoint {file}: {reason}.") from None


def _refuse_damaged(file: str, sign: str) -> NoReturn:
    cure = "download or copy it again, or use an older checkpoint"
    _refuse(file, f"it is damaged ({sign}); {cure}")


def _refuse_code(file: str, name: str) -> NoReturn:
    _refuse(
        file,
        f"it wants to run {printable(name)}, and such objects can run code; where it was made, "
        "save only its weights: torch.save(model.state_dict(), NEW_FILE)",
    )
