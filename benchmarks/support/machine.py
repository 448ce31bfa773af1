"""Facts about the machine that numbers were measured on."""

import contextlib
import platform
import re
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

import torch
import torchvision

ROOT = Path(__file__).parents[2]
MIB = 2**20
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}


def devices() -> list[str]:
    """Return the devices of this machine that can be measured, the best last."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def describe(device: str) -> str:
    """Return the name of the device, for a CPU with the number of threads in use."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def versions() -> str:
    """Return the versions of Python, torch, torchvision, and of Triton if there is a GPU."""
    found = [f"python {platform.python_version()}", f"torch {torch.__version__}"]
    found += [f"torchvision {torchvision.__version__}"]
    if torch.cuda.is_available():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found += [f"triton {metadata.version('triton')}"]
    return ", ".join(found)


def commit() -> str:
    """Return the commit of the working copy, with `+` if tracked files of the package changed."""
    outputs = []
    for command in ("rev-parse --short=10 HEAD", "status --porcelain -uno brloss_d2"):
        try:
            done = subprocess.run(
                ["git", *command.split()], cwd=ROOT, capture_output=True, text=True
            )
        except FileNotFoundError:
            return ""
        outputs.append(done.stdout.strip())
    return outputs[0] + "+" * bool(outputs[1])


def synchronize(device: str) -> None:
    """Wait until the device has finished all work given to it."""
    if device == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: str, rounds: int = 9) -> float:
    """Return bytes per second, read plus written, of copying a large tensor; the median."""
    source = torch.ones(_COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(seconds[1:])


def free_memory(device: str) -> float:
    """Return the bytes that can still be allocated; infinity if the system does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    info = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s*(\d+) kB", info.read_text()) if info.exists() else None
    return int(found[1]) * 1024 if found else float("inf")
