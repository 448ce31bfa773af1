"""Start one or several processes, and report what goes wrong in any of them once."""

import argparse
import atexit
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from brloss_d2.engine.hooks.signals import SIGNALS
from brloss_d2.engine.slurm import torchrun_variables
from brloss_d2.engine.trainer import NonFiniteLossError
from brloss_d2.errors import InputError, user_message

USER_ERRORS = (InputError, NonFiniteLossError)
_EXIT_STATUS = 1
# As a shell has it of a process that a signal has ended; this is also ours after a graceful stop.
_STOPPED = {128 + number: 128 + number for number in SIGNALS} | {-n: 128 + n for n in SIGNALS}
# Time for the launcher to end this process, when it fails only because another one has.
_PEER_SECONDS = 5.0
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

T = TypeVar("T")


def run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run `main(args)` in as many processes as the command line, torchrun or srun asks for.

    A mistake of the user ends the program with one line on stderr and exit status 1; a run that a
    signal has stopped ends with 128 + the signal's number.

    Args:
        main: a function that can be imported, since other processes do so.
        args: the result of `detectron2.engine.default_argument_parser`. Under torchrun and srun,
            which have started the processes, its options on their number are ignored.
    """
    with _reported():
        is_joined = _join()
    if is_joined:
        _worker(main, args)
        return
    with _reported():
        _check_processes(args)
    several = args.num_gpus * args.num_machines > 1
    with _reported(), _signals_passed_on() if several else nullcontext():
        launch(
            _worker,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )


def in_agreement(step: Callable[[], T]) -> T:
    """Run a step in every process; if it fails in any of them, report it and leave all.

    Without this, processes that have failed alike would all say so, and one that has not would
    wait for the others.

    Args:
        step: a function without collective operations.

    Raises:
        InputError: there is only one process, and the step has raised it.
    """
    if comm.get_world_size() == 1:
        return step()
    failure = None
    try:
        result = step()
    except InputError as error:
        failure = user_message(error)
    failures = [f for f in comm.all_gather(failure) if f is not None]
    if failures:
        if comm.is_main_process():
            for message in dict.fromkeys(failures):
                _print_error(message)
        comm.synchronize()  # the launcher ends all processes when the first one leaves
        sys.exit(_EXIT_STATUS)
    return result


def _worker(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    if dist.is_initialized():
        # The launcher's way to start processes would hold for those that load data too: a new
        # Python and its imports for each of them, at every start of a loader.
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    try:
        with _reported():
            main(args)
    except SystemExit as end:
        _leave(end.code)
        raise
    _leave(0)


def _leave(status: int) -> None:
    """End one process of several without taking its interpreter down.

    That may abort the process (seen under gloo, once in some twenty runs: "terminate called"),
    because threads of the process group outlive the interpreter.
    """
    if not dist.is_initialized():
        return
    if status == 0:
        comm.synchronize()  # the first process serves the others' connections
        dist.destroy_process_group()
    atexit._run_exitfuncs()  # ends the processes that load data, closes the log
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except USER_ERRORS as error:
        _print_error(user_message(error))
        sys.exit(_EXIT_STATUS)
    except ProcessExitedException as error:
        if error.exit_code in _STOPPED:
            sys.exit(_STOPPED[error.exit_code])
        if error.exit_code != _EXIT_STATUS:
            raise
        sys.exit(_EXIT_STATUS)  # the process itself has said why
    except Exception as error:
        if comm.get_world_size() > 1:
            time.sleep(_PEER_SECONDS)
        _to_log_file("Stopped by an exception:", error)
        raise


def _print_error(message: str) -> None:
    _to_log_file(message)
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)


def _to_log_file(message: str, error: Exception | None = None) -> None:
    """Write to log.txt alone, if there is one by now: stderr tells the same to the terminal."""
    logger = logging.getLogger("brloss_d2")
    trace = (type(error), error, error.__traceback__) if error else None
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), trace)
    for handler in logger.handlers:
        if getattr(handler, "stream", sys.stdout) is not sys.stdout:
            handler.handle(record)


def _join() -> bool:
    """Meet the other processes if torchrun or srun has started them."""
    by_srun = {}
    if not all(name in os.environ for name in _TORCHRUN):
        by_srun = torchrun_variables(os.environ)
        if not by_srun:
            return False
        os.environ.update(by_srun)
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        # srun may show each of its tasks only the GPU that is its own.
        own = by_srun and torch.cuda.device_count() == 1
        if not own:
            _check_gpus(local_size)
        torch.cuda.set_device(0 if own else local_rank)
    dist.init_process_group("nccl" if has_gpu else "gloo", init_method="env://")
    comm.create_local_process_group(local_size)
    return True


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    """Let the processes that this one starts stop in good order, and wait for them."""

    def pass_on(number: int, frame: object) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_processes(args: argparse.Namespace) -> None:
    if args.num_gpus < 1 or args.num_machines < 1:
        raise InputError("--num-gpus and --num-machines have to be at least 1.")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise InputError("--num-machines needs --dist-url tcp://ADDRESS:PORT of machine 0.")
    if torch.cuda.is_available() and args.num_gpus > 1:
        _check_gpus(args.num_gpus)


def _check_gpus(wanted: int) -> None:
    if wanted > torch.cuda.device_count():
        raise InputError(
            f"{wanted} processes need as many GPUs; this machine has {torch.cuda.device_count()}. "
            "(CUDA_VISIBLE_DEVICES= runs them on the CPU.)"
        )
