"""Compile every kernel for three generations of GPUs. Run by `test_triton.py`; needs no GPU."""

import os
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from brloss_d2.ops.triton import cells as cells_triton
from brloss_d2.ops.triton import fused
from brloss_d2.ops.triton import ramp as ramp_triton
from brloss_d2.projects.co_detr.layers import ms_deform_triton

RECENT = hasattr(triton, "knobs")  # since 3.3 constants are part of the signature
CAPABILITIES = (80, 90, 100) if RECENT else (80, 90)
_SAMPLING = dict.fromkeys(["value", "locations", "weights"], "*f") | {"levels": "*i32"}
_SAMPLED = dict.fromkeys(["cells", "queries", "heads", "channels"], "i32")
_BLOCKS = {"LEVELS": 4, "POINTS": 4, "QUERIES": 32, "CHANNELS": 32}

_FLOAT64 = ("edges", "tails", "counts", "distances", "poison", "level", "slope", "errors", "values")
_FLOAT64 += ("false_positives", "others", "shares", "gradients")
_POINTERS = dict.fromkeys(_FLOAT64, "*fp64") | {
    **dict.fromkeys(["logits", "ranked", "gradient"], "*f"),
    # The results of half precision are float32.
    **dict.fromkeys(["value", "other_value", "upstream", "other_upstream"], "*fp32"),
    **dict.fromkeys(["qualities", "error_gradient"], "*fp32"),
    **dict.fromkeys(["labels", "order", "positives", "totals"], "*i64"),
}
_NUMBERS = dict.fromkeys(["size", "num", "cells", "step", "copies", "blocks"], "i32")
_PASS = {"CLASSES": 0, "BLOCK": 1024}
_PAIRS = {"ROWS": 16, "COLUMNS": 64}


def of_losses(kernel: Any, types: dict[str, str], **constants: Any) -> tuple[Any, ...]:
    """Kernel of whole losses with the types of its arguments, named alike in all of them."""
    types = _POINTERS | _NUMBERS | types
    names = [name for name in kernel.arg_names if name not in constants]
    return kernel, {name: types[name] for name in names}, constants


KERNELS = {
    "count": of_losses(cells_triton._count, {}, SIZE_BITS=20, **_PASS),
    # Triton makes constants of arguments that are 1, unless told not to.
    "count in one cell": of_losses(
        cells_triton._count,
        {"labels": "*i8", "size": "i64"},
        SIZE_BITS=40,
        cells=1,
        copies=1,
        **_PASS,
    ),
    "count, labels of rows": of_losses(
        cells_triton._count, {"labels": "*i1"}, SIZE_BITS=20, CLASSES=80, BLOCK=1024
    ),
    "add up": of_losses(cells_triton._add_up, {}, SIZE_BITS=20, CELLS=32, WIDE=32, BLOCK=1024),
    "write": of_losses(cells_triton._write, {}, SLOPED=True, **_PASS),
    "write, labels of rows": of_losses(
        cells_triton._write, {}, SLOPED=False, CLASSES=80, BLOCK=1024
    ),
    **{
        f"{name}, {delta}, {kind}": of_losses(kernel, {}, DELTA=delta, KIND=kind, **_PAIRS, **more)
        for name, kernel, more in (
            ("rank", fused._rank, {"FLOOR": 1e-10}),
            ("settle", fused._settle, {}),
        )
        for delta, kind in (
            *((0.3, kind) for kind in ("precision", "interpolated", "sort", "localize")),
            (0.0, "sort"),
        )
    },
    "cut, exact comparison": of_losses(fused._cut, {}, DELTA=0.0, BUCKETS=False, BLOCK=1024),
    "cut": of_losses(fused._cut, {}, DELTA=0.3, BUCKETS=False, BLOCK=1024),
    "cut into buckets": of_losses(fused._cut, {}, DELTA=0.3, BUCKETS=True, BLOCK=1024),
    "level": of_losses(fused._level, {}, DELTA=0.3, SLOPED=True, **_PAIRS),
    "level, exact comparison": of_losses(fused._level, {}, DELTA=0.0, SLOPED=False, **_PAIRS),
    "level of one positive": of_losses(fused._level, {}, num=1, DELTA=0.3, SLOPED=True, **_PAIRS),
    "overwrite": of_losses(fused._overwrite, {}, KIND="sort", BLOCK=1024),
    "overwrite errors": of_losses(fused._overwrite, {}, KIND="localize", BLOCK=1024),
    "sum_pairs": (
        ramp_triton._sum_pairs,
        dict.fromkeys(["thresholds", "values", "weights", "partial"], "*fp64")
        | {"prefix": "*i64", "num_thresholds": "i32", "num_values": "i32", "rows": "i32"},
        {"DELTA": 0.3, "THRESHOLDS": 64, "VALUES": 32, "TILES": 8},
    ),
    "sum_pairs of one row, compared exactly": (
        ramp_triton._sum_pairs,
        dict.fromkeys(["thresholds", "values", "weights", "partial"], "*fp64")
        | {"prefix": "*i64", "num_thresholds": "i32", "num_values": "i32"},
        {"rows": 1, "DELTA": 0.0, "THRESHOLDS": 64, "VALUES": 32, "TILES": 1},
    ),
    "sample deformably": (ms_deform_triton._sample, _SAMPLING | {"out": "*f"} | _SAMPLED, _BLOCKS),
    "sample deformably with one head": (
        ms_deform_triton._sample,
        {k: t for k, t in (_SAMPLING | {"out": "*f"} | _SAMPLED).items() if k != "heads"},
        _BLOCKS | {"heads": 1},
    ),
    "differentiate deformable sampling": (
        ms_deform_triton._differentiate,
        dict.fromkeys(["upstream", "by_value", "by_location", "by_weight"], "*f")
        | _SAMPLING
        | _SAMPLED,
        _BLOCKS,
    ),
}

# Those that read or write logits.
OTHER_TYPES = (
    "count",
    "write",
    "cut",
    "level",
    "rank, 0.3, sort",
    "settle, 0.3, sort",
    "overwrite",
)


def compile_kernel(name: str, real: str, capability: int) -> None:
    kernel, types, constants = KERNELS[name]
    names = kernel.arg_names
    types = {n: f"*{real}" if t == "*f" else t for n, t in types.items()}
    if RECENT:
        signature = {n: types.get(n, "constexpr") for n in names}
        constants = {(names.index(n),): value for n, value in constants.items()}
    else:
        signature = {n: types[n] for n in names if n in types}
    source = ASTSource(kernel, signature, constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert made.asm["cubin"], name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for kernel_name in KERNELS:
            for capability in CAPABILITIES:
                compile_kernel(kernel_name, "fp32", capability)
        for kernel_name in OTHER_TYPES:
            for real in ("fp16", "bf16", "fp64"):
                compile_kernel(kernel_name, real, 80)
