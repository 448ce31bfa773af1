"""Run Python programs one after the other in forks of a process that has imported torch already.

Reads a JSON object a line, with `words` (script and arguments), `folder`, `environment` and `log`,
and answers each with the exit status. Importing takes longer than most of the docs' commands. What
they spawn is forked, too.
"""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import traceback

import detectron2.engine  # noqa: F401
import matplotlib

import brloss_d2.engine
import brloss_d2.modeling
import brloss_d2.plotting
import brloss_d2.prediction  # noqa: F401

matplotlib.use("Agg")
LIMIT = 120  # seconds


class _Process(multiprocessing.context.ForkProcess):
    """A fork that takes signals as a new Python does."""

    def run(self) -> None:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        super().run()


class _Fork(multiprocessing.context.ForkContext):
    Process = _Process


def main() -> None:
    """Serve until the input ends."""
    multiprocessing.context._concrete_contexts["spawn"] = _Fork()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(**job)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(words: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    """Be that program: never returns."""
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(LIMIT)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = words
    status = 0
    try:
        script = os.path.realpath(words[0])
        sys.path[0] = os.path.dirname(script)
        if "PYTHONPATH" in environment:  # Python has read it before
            sys.path[1:1] = environment["PYTHONPATH"].split(os.pathsep)
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
