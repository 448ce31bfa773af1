"""A pretend accelerator: real numbers on a device that is no CPU, and a count of what it costs.

Tensors on it keep their data in a CPU tensor and report the device "pretend", a backend that
torch's own interface for backends in Python (2.10 or newer) registers. Operators that mix them with
CPU tensors raise as on a GPU. Counted are

* launches: operators, except views and allocations, which inside of torch may be several kernels;
  and Triton kernels, which run in Triton's interpreter;
* syncs: operators that make the host wait for the device, with the line that called them;
* uploads: copies to the device that are not asked for without a wait (`non_blocking=True`). CUDA
  waits for the work before such a copy from pageable memory, too.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
import torchvision  # noqa: F401  registers its operators, before the device can be told of them
from torch import nn
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from brloss_d2.ops import dispatch


class _Backend(_DummyBackendModule):
    """The module `torch.pretend`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def device(self, _: torch.device) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


_setup_privateuseone_for_python_backend("pretend", backend_module=_Backend())
DEVICE = torch.device("pretend", 0)
aten = torch.ops.aten
# Autocast: operators in the lower precision, and those of torchvision that only know float32, as on
# a GPU; all others as they are.
_LOWERED = ("linear", "matmul", "mm", "bmm", "addmm", "conv2d", "conv_transpose2d.input")
_RAISED = ("nms", "roi_align", "deform_conv2d")
_AUTOCAST = torch._C.DispatchKey.AutocastPrivateUse1  # type: ignore[attr-defined]
_LIBRARIES = {name: torch.library.Library(name, "IMPL") for name in ("_", "aten", "torchvision")}


def _autocast(name: str, dtype: torch.dtype | None) -> None:
    """Let an operator compute in a type, that of autocast if None; all in float32 return theirs."""
    namespace, _, path = name.partition(".")
    packet, _, overload = path.partition(".")
    operator = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        wanted = dtype or torch.get_autocast_dtype("pretend")

        def change(x: torch.Tensor) -> torch.Tensor:
            return x.to(wanted) if x.is_floating_point() and x.dtype != torch.float64 else x

        changed, named = tree_map_only(torch.Tensor, change, (args, kwargs))
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_AUTOCAST)):
            result = operator(*changed, **named)
        keeps = dtype is None or not result.is_floating_point()
        return result if keeps else result.to(args[0].dtype)

    _LIBRARIES[namespace].impl(path, kernel, "AutocastPrivateUse1")


_LIBRARIES["_"].fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for _name in _LOWERED:
    _autocast(f"aten.{_name}", None)
for _name in _RAISED:
    _autocast(f"torchvision.{_name}", torch.float32)
# Operators whose result, or the size of it, the host has to know.
_SYNCS = {
    *("_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero", "masked_select", "nms"),
    *("nonzero", "unique_consecutive", "unique_dim"),
}
_AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality
_ALLOCATIONS = ("empty", "new_empty")
_MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}
_COPIES = {"_to_copy", "copy_"}
_FILES = ("brloss_d2/", "projects/", "detectron2/")


class PretendTensor(torch.Tensor):
    """A tensor on the pretend device.

    Args:
        values: CPU tensor with its data.
    """

    data_on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls: type[PretendTensor], values: torch.Tensor) -> PretendTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        tensor.data_on_cpu = values
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.data_on_cpu!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func} of a pretend tensor outside of `pretend_device()`")


class PretendDevice(TorchDispatchMode):
    """Counts of what was run while it was active.

    Attributes:
        launches: number of launches by operator.
        syncs: number of waits by operator and line of code.
        uploads: number of blocking copies to the device by line of code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.syncs: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[str] = Counter()

    def reset(self) -> None:
        """Start to count anew."""
        for counts in (self.launches, self.syncs, self.uploads):
            counts.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        here = [x for x in tensors if isinstance(x, PretendTensor)]
        if not tensors and "device" not in kwargs:
            return func(*args, **kwargs)
        if here and func._schema.name in OPDEFS:
            # An operator in Python: its parts count. Composite ones are taken apart above autograd.
            above = torch._C._SetExcludeDispatchKeyGuard(_AUTOGRAD, False)
            with self, _FromData(), above, torch.no_grad():
                return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        self._check_devices(name, args, here, tensors)
        target = kwargs.get("device")
        if target is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
            on_device = torch.device(target).type == DEVICE.type
        else:
            on_device = isinstance(args[0], PretendTensor) if name == "copy_" else bool(here)
        self._count(func, name, args, kwargs, here, on_device)
        plain_args, plain_kwargs = tree_map_only(
            PretendTensor, lambda x: x.data_on_cpu, (args, kwargs)
        )
        result = func(*plain_args, **plain_kwargs)
        if name.endswith("_") and not name.endswith("__"):
            return args[0]
        if "out" in kwargs:
            return kwargs["out"]
        if not on_device:
            return result
        return tree_map_only(torch.Tensor, PretendTensor, result)

    def _check_devices(
        self, name: str, args: tuple, here: list[PretendTensor], tensors: list[torch.Tensor]
    ) -> None:
        """Raise where a GPU would: for tensors of two devices, unless one is a number."""
        others = [x for x in tensors if not isinstance(x, PretendTensor) and x.ndim > 0]
        if not here or not others or name in _COPIES:
            return
        if name in _MASKED and isinstance(args[0], PretendTensor):
            self.syncs["index from the CPU", _caller()] += 1  # allowed, at the price of a copy
            return
        raise RuntimeError(f"{name}: tensors on two devices in {_caller()}")

    def _count(
        self, func: Any, name: str, args: tuple, kwargs: dict, here: list, on_device: bool
    ) -> None:
        if not here and not (on_device and name in _COPIES):
            self.launches[name] += on_device and not name.startswith(_ALLOCATIONS)
            return
        if not (func.is_view or name.startswith(_ALLOCATIONS)):
            self.launches[name] += 1
        source = args[1] if name == "copy_" else args[0]
        uploads = name in _COPIES and on_device and not isinstance(source, PretendTensor)
        if uploads and not (kwargs.get("non_blocking") or args[2:] == (True,)):
            self.uploads[_caller()] += 1
        waits = name in _SYNCS or (name in _COPIES and here and not on_device)
        if name in _MASKED:
            waits = any(x is not None and x.dtype == torch.bool for x in args[1])
        if name == "repeat_interleave":
            waits = kwargs.get("output_size") is None
        if waits:
            self.syncs[name, _caller()] += 1


class _FromData(TorchFunctionMode):
    """Functions between tensors and Python numbers, which torch runs without its dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist and isinstance(args[0], PretendTensor):
            return args[0].to("cpu").tolist()
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if isinstance(args[0], PretendTensor) and any(isinstance(i, list) for i in index):
                index = tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
                args = (args[0], index, *args[2:])
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            like = args[0] if func is torch.Tensor.new_tensor else None
            device = torch.device(
                kwargs.get("device") or (like.device if like is not None else "cpu")
            )
            if device.type == DEVICE.type:
                data = args[0] if like is None else args[1]
                dtype = kwargs.get("dtype") or (like.dtype if like is not None else None)
                requires_grad = kwargs.get("requires_grad", False)
                values = data if isinstance(data, torch.Tensor) else torch.tensor(data, dtype=dtype)
                return values.to(device=DEVICE, dtype=dtype).requires_grad_(requires_grad)
        return func(*args, **kwargs)


def _caller() -> str:
    """Return file and line of the code of detectors that called an operator."""
    for frame in reversed(traceback.extract_stack()):
        parts = [frame.filename.rpartition(f"/{folder}") for folder in _FILES]
        if "/tests/" not in frame.filename and any(folder for _, folder, _ in parts):
            return "/".join(frame.filename.split("/")[-3:]) + f":{frame.lineno}"
    return "elsewhere"


@contextlib.contextmanager
def _interpret_kernels(device: PretendDevice) -> Iterator[None]:
    """Let Triton kernels run on the data of pretend tensors, and be counted."""
    try:
        from triton.runtime.interpreter import InterpretedFunction
        from triton.runtime.jit import JITFunction
    except ImportError:
        yield
        return

    def launch(kernel: Any, *args: Any, **kwargs: Any) -> None:
        device.launches[kernel.__name__] += 1
        args, kwargs = tree_map_only(PretendTensor, lambda x: x.data_on_cpu, (args, kwargs))
        InterpretedFunction(kernel.fn).run(*args, **kwargs)

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return InterpretedFunction(function.fn)(*args, **kwargs)

    with (
        patch.multiple(JITFunction, run=launch, __call__=call),
        patch.object(dispatch, "check_triton"),
    ):
        yield


@contextlib.contextmanager
def pretend_device() -> Iterator[PretendDevice]:
    """Run tensors of the pretend device within a `with` block."""
    with PretendDevice() as device, _FromData(), _interpret_kernels(device):
        yield device


def move(module: nn.Module) -> nn.Module:
    """Move a module to the pretend device; inside of `pretend_device()`."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return module.to(DEVICE)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
