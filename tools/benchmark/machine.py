"""What the numbers were measured on: device, versions, commit, copy bandwidth, free memory."""

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
# Two passes read each float32 logit, one writes its gradient; labels not counted.
LIMIT_BYTES = 12
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}


def describe(device: str) -> str:
    """The device by name; of a CPU, the threads in use as well."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' * (threads > 1)}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> str:
    """Of Python, torch (with CUDA, if any), torchvision, and Triton where a GPU may use it."""
    found = [f"python {platform.python_version()}", f"torch {torch.__version__}"]
    found += [f"torchvision {torchvision.__version__}"]
    if torch.cuda.is_available():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found += [f"triton {metadata.version('triton')}"]
    return ", ".join(found)


def commit() -> str:
    """The commit that is checked out, with `+` if files that git knows have changed since."""
    short = _git("rev-parse", "--short=10", "HEAD")
    return short + "+" * bool(_git("status", "--porcelain", "--untracked-files=no", "brloss_d2"))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def synchronize(device: str) -> None:
    """Wait for what the device has been told to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: str, rounds: int = 9) -> float:
    """Bytes a second, read and written, of copying one large tensor to another; the median."""
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
    """Bytes that can still be allocated; infinite where the system does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    info = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s*(\d+) kB", info.read_text()) if info.exists() else None
    return int(found[1]) * 1024 if found else float("inf")
