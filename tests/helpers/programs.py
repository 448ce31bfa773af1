"""train_net.py as a separate process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def train_net(
    *args: str, config: Path, launcher: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, with options before overrides in `args`."""
    process = start(*args, config=config, launcher=launcher, env=env)
    out, err = process.communicate(timeout=150)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start(
    *args: str, config: Path, launcher: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the program in its own process group.

    Args:
        args: options, then overrides.
        config: path of the config file.
        launcher: words between the interpreter and the program, such as `TORCHRUN`.
        env: environment variables to add.

    Returns:
        The process, whose output is piped.
    """
    variables = os.environ | {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        **(env or {}),
    }
    command = [sys.executable, *launcher, str(ROOT / "train_net.py"), "--config-file", str(config)]
    return subprocess.Popen(
        [*command, *args],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
