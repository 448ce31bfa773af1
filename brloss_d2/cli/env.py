r"""Describe the environment for a bug report, and check a loss on the device against the CPU.

    %(prog)s
    %(prog)s --device cpu

Prints versions, GPUs, where detectron2 comes from, what evaluates and what computes the losses. The
exit status is 1 if something is missing or a loss is wrong. Nothing in it names files or accounts.
"""

import argparse
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import NamedTuple

from brloss_d2.cli.common import make_parser, run_program

_NEEDED = ("torch", "torchvision", "detectron2", "numpy", "pycocotools", "fvcore", "omegaconf")
_OPTIONAL = (
    *("hotcoco", "lvis", "triton", "onnx", "onnxruntime", "safetensors", "huggingface_hub"),
    *("opencv-python", "opencv-python-headless", "timm", "supervision", "sahi", "wandb"),
)
_LOSSES = ("ap_loss", "alrp_loss", "rank_sort_loss", "bucketed_rank_sort_loss")
_TOLERANCE = 1e-3  # relative, float32


class Finding(NamedTuple):
    """A line of the report.

    Attributes:
        what: subject.
        text: what was found.
        is_fine: whether the package can work with it.
    """

    what: str
    text: str
    is_fine: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    return run_program(_report, parser.parse_args(argv))


def _report(args: argparse.Namespace) -> int:
    findings = list(_packages())
    try:
        findings += [*_devices(args.device), *_losses(args.device)]
    except ImportError as error:
        findings.append(Finding("losses", f"not checked: {error}", is_fine=False))
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.what:<{width}}  {finding.text}{'' if finding.is_fine else '  <-- wrong'}")
    wrong = sum(not finding.is_fine for finding in findings)
    print(f"\n{wrong} of {len(findings)} lines are wrong." if wrong else "\nNothing is wrong.")
    return 1 if wrong else 0


def _packages() -> Iterator[Finding]:
    """Yield versions, and where detectron2 comes from."""
    from brloss_d2 import __version__

    yield Finding("brloss_d2", f"{__version__}, {_origin()}")
    yield Finding("system", f"Python {platform.python_version()}, {platform.platform()}")
    for name in _NEEDED:
        found = _version(name)
        yield Finding(name, found or "missing", bool(found))
    if _version("detectron2"):
        summary = metadata("detectron2")["Summary"] or ""
        compiled = "without" not in summary and "compiled" not in summary
        origin = (
            "its own build, compiled operators" if compiled else f"compat/detectron2: {summary}"
        )
        yield Finding("detectron2 from", origin)
    others = [f"{name} {found}" for name in _OPTIONAL if (found := _version(name))]
    yield Finding("optional", ", ".join(others) or "none")
    hotcoco = _version("hotcoco")
    yield Finding("evaluator", f"hotcoco {hotcoco}" if hotcoco else "pycocotools")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _origin() -> str:
    """Return the commit of a clone, or that the package is installed."""
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        return "installed"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "commit unknown"
    return f"commit {done.stdout.strip() or 'unknown'}"


def _devices(device: str) -> Iterator[Finding]:
    """Yield GPUs, cores and what computes the losses."""
    import torch

    import brloss_d2
    from brloss_d2.engine import choose_device

    yield Finding("CUDA of torch", torch.version.cuda or "none: a build for the CPU")
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        memory, capability = gpu.total_memory / 2**30, f"{gpu.major}.{gpu.minor}"
        yield Finding(f"GPU {number}", f"{gpu.name}, {memory:.0f} GiB, capability {capability}")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use")
    yield Finding("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch")
    chosen = choose_device(device, key="--device")
    yield Finding("losses by", f"{brloss_d2.ops.chosen_backend(chosen)} on {chosen}")


def _losses(device: str) -> Iterator[Finding]:
    """Compare value and gradient of losses on the device with their definitions on the CPU."""
    import torch

    import brloss_d2
    from brloss_d2.engine import choose_device

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, generator=generator)
    labels = (torch.rand(2000, generator=generator) < 0.05).long()
    quality = torch.rand(int(labels.sum()), generator=generator)

    def measured(name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Return the value and the gradient in one tensor."""
        x = logits.to(device, dtype).requires_grad_()
        inputs = [labels.to(device)]
        if name != "ap_loss":
            inputs.append(quality.to(device, dtype))
        terms = getattr(brloss_d2, name)(x, *inputs)
        total = torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(total, x)
        return torch.cat([total.detach().reshape(1), gradient]).cpu().double()

    chosen = choose_device(device, key="--device")
    for name in _LOSSES:
        found = measured(name, chosen, torch.float32)
        with brloss_d2.ops.use_backend("reference"):
            expected = measured(name, torch.device("cpu"), torch.float64)
        errors = (found - expected).abs()
        value = float(errors[0] / expected[0].abs())
        gradient = float(errors[1:].max() / expected[1:].abs().max())
        text = f"on {chosen}: value within {value:.0e}, gradient within {gradient:.0e}"
        yield Finding(name, text, max(value, gradient) < _TOLERANCE)
