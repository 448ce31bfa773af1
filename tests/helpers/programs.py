"""Programs as separate processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOG = "log_of_the_test.txt"  # in the folder of a program of `Programs`
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


def train_net_words(*args: str, config: Path) -> list[str]:
    """Return the script with its arguments, for `Programs`."""
    return [str(ROOT / "train_net.py"), "--config-file", str(config), *args]


class Programs:
    """Runs Python programs in forks of a process that has imported everything already."""

    def __init__(self) -> None:
        self.done: list[list[str]] = []
        own = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        own["DETECTRON2_DATASETS"] = "datasets/miniatures"  # read when detectron2 is imported
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "warm_python.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **own},
        )

    def run(self, words: list[str], folder: Path, environment: Mapping[str, str] = {}) -> str:
        """Run a script with its arguments in a folder.

        Returns:
            What it has printed.

        Raises:
            AssertionError: it has failed, with the end of its output.
        """
        status, output = self.finish(words, folder, environment)
        if status:
            end = "\n".join(output.splitlines()[-12:])
            raise AssertionError(f"exit status {status} of: {' '.join(words)}\n{end}")
        self.done.append(words)
        return output

    def finish(
        self, words: list[str], folder: Path, environment: Mapping[str, str] = {}
    ) -> tuple[int, str]:
        """Run a script with its arguments; return its exit status and what it has printed."""
        log = folder / LOG
        log.unlink(missing_ok=True)
        job = {
            "words": words,
            "folder": str(folder),
            "environment": dict(environment),
            "log": str(log),
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        start = time.perf_counter()
        status = int(self.process.stdout.readline())
        print(f"{time.perf_counter() - start:5.1f} s: {' '.join(words)}"[:150])  # for pytest -s
        return status, log.read_text()

    def train_net(self, *args: str, config: Path) -> str:
        """Run train_net.py in the folder of its config, and return its output."""
        return self.run(train_net_words(*args, config=config), config.parent)

    def spawn(
        self, function: Callable[..., None], *arguments: Any, processes: int, folder: Path
    ) -> None:
        """Call a function of a module in each process of a group, which torch.distributed knows.

        Args:
            function: what each process calls.
            *arguments: its arguments, as JSON has them.
            processes: number of processes.
            folder: folder to run in.
        """
        name = (function.__module__, function.__name__)
        program = str(Path(__file__).parent / "spawn.py")
        self.run([program, *name, str(processes), json.dumps(arguments)], folder)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
