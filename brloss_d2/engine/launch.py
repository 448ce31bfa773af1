"""Processes of a run: start or join them, and report an error in any of them once."""

import argparse
import atexit
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, start_processes

from brloss_d2.engine.hooks.signals import SIGNALS, handled_by
from brloss_d2.engine.logs import LogFile
from brloss_d2.engine.trainer import NonFiniteLossError
from brloss_d2.errors import InputError, user_message
from brloss_d2.utils.faults import BROKEN_CONNECTION, machine_fault
from brloss_d2.utils.terminal import clean_output

_USER_ERRORS = (InputError, NonFiniteLossError)
_EXIT_STATUS = 1
_RESUME = "The same command with --resume continues a training from its last checkpoint."
# Exit status of a shell for a process that a signal has ended; also ours after a graceful stop.
_STOPPED = {128 + number: 128 + number for number in SIGNALS} | {-n: 128 + n for n in SIGNALS}
# Time for the launcher to end this process if it fails only because another one has failed.
_PEER_SECONDS = 5.0
_CTRL_C = (signal.SIGINT,)
# Processes on the CPU: as many as can make sense, in a test, per core and on a small machine.
_PROCESSES_PER_CORE, _MOST_PROCESSES = 2, 8
# Between two looks at the launcher.
_LAUNCHER_SECONDS = 0.5
# Each process of a run learns its number from these, however it was started.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_URL = re.compile(r"tcp://(?P<host>[^/]+):(?P<port>\d+)")
# Ports for srun, by the number of the job; below those that systems hand out.
_FIRST_PORT, _PORTS = 15_000, 10_000

T = TypeVar("T")


def run(
    main: Callable[[argparse.Namespace], None],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], None] | None = None,
) -> None:
    """Run `main(args)` in as many processes as the command line, torchrun or srun asks for.

    A mistake of the user or a fault of the machine ends the program with one line on stderr and
    exit status 1; a run that a signal has stopped ends with 128 + the number of the signal.

    Args:
        main: function that other processes can import.
        args: options of the command line: `num_gpus`, `num_machines`, `machine_rank` and
            `dist_url`, which are ignored under torchrun and srun, and those of `main`.
        check: function to call before several processes are started, to find mistakes.
    """
    with clean_output():
        with _reported():
            if not _has_peers():
                os.environ.update(torchrun_variables(os.environ))
            address = {} if _has_peers() else _meeting_point(args)
            if address and args.num_gpus * args.num_machines > 1:
                if check is not None:
                    check(args)
                with handled_by(_pass_on):
                    _start_all(main, args, address)
                return
        _worker(main, args)


def in_agreement(step: Callable[[], T]) -> T:
    """Run a step in every process; if it fails in any of them, report it once and exit all.

    Otherwise all processes would report the same failure, and one without a failure would wait for
    the others.

    Args:
        step: function without collective operations.

    Raises:
        InputError: the step has raised it and there is only one process.
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
        comm.synchronize()  # the launcher ends all processes as soon as one exits
        sys.exit(_EXIT_STATUS)
    return result


def torchrun_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Translate the environment of a SLURM task; empty unless srun has started several tasks.

    Processes meet at the first node of the step, at a port that depends on the number of the job;
    MASTER_ADDR and MASTER_PORT override both.

    Args:
        env: environment variables.

    Raises:
        InputError: the nodes have different numbers of tasks.
    """
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return {}
    tasks = env["SLURM_STEP_TASKS_PER_NODE"]  # such as 8(x2), or 8,4
    per_node = set(re.findall(r"(?:^|,)(\d+)", tasks))
    if len(per_node) > 1:
        raise InputError(
            f"srun has started {tasks} tasks on its nodes: expected the same number on each node, "
            "--ntasks-per-node=N."
        )
    port = _FIRST_PORT + int(env.get("SLURM_JOB_ID", 0)) % _PORTS
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": per_node.pop(),
        "MASTER_ADDR": env.get("MASTER_ADDR") or first_node(env["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": env.get("MASTER_PORT") or str(port),
    }


def first_node(nodes: str) -> str:
    """Return the first name of a SLURM list such as `gpu[07-09,12],login1`."""
    return re.sub(r"^([^,\[]*)(?:\[([^],-]+)[^]]*\])?([^,]*).*$", r"\1\2\3", nodes)


def _meeting_point(args: argparse.Namespace) -> dict[str, str]:
    """Check the options about processes; return where the processes meet, as torchrun does."""
    if args.num_gpus < 1 or args.num_machines < 1:
        raise InputError("--num-gpus and --num-machines have to be at least 1.")
    if not 0 <= args.machine_rank < args.num_machines:
        raise InputError(
            f"--machine-rank {args.machine_rank}: expected 0 to {args.num_machines - 1}, because "
            f"--num-machines is {args.num_machines}."
        )
    if torch.cuda.is_available() and args.num_gpus > 1:
        _check_gpus(args.num_gpus)
    cores = os.cpu_count() or 1
    most = max(_MOST_PROCESSES, _PROCESSES_PER_CORE * cores)
    if not torch.cuda.is_available() and args.num_gpus > most:
        raise InputError(
            f"--num-gpus {args.num_gpus}: without a GPU, processes share the {cores} CPU cores of "
            f"this machine, at most {most} of them."
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise InputError("--num-machines needs --dist-url tcp://ADDRESS:PORT of machine 0.")
    if args.dist_url == "auto":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    url = _URL.fullmatch(args.dist_url)
    if url is None:
        raise InputError(f"--dist-url {args.dist_url}: expected auto or tcp://ADDRESS:PORT.")
    return {"MASTER_ADDR": url["host"], "MASTER_PORT": url["port"]}


def _has_peers() -> bool:
    """Return whether this process has been started as one of several."""
    return all(name in os.environ for name in _TORCHRUN)


def _start_all(
    main: Callable[[argparse.Namespace], None],
    args: argparse.Namespace,
    address: Mapping[str, str],
) -> None:
    """Start the processes of this machine and wait until they end."""
    # While they import, they could not tell Ctrl-C from an error: `_worker` unblocks it.
    resource_tracker.ensure_running()  # would unblock it, too
    signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)
    processes = start_processes(
        *(_start, (main, args, address), args.num_gpus), join=False, start_method="spawn"
    )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CTRL_C)
    while not processes.join():
        pass


def _start(
    local_rank: int,
    main: Callable[[argparse.Namespace], None],
    args: argparse.Namespace,
    address: Mapping[str, str],
) -> None:
    """Run one of the processes that this program has started itself."""
    os.environ.update(
        address,
        RANK=str(args.machine_rank * args.num_gpus + local_rank),
        WORLD_SIZE=str(args.num_machines * args.num_gpus),
        LOCAL_RANK=str(local_rank),
        LOCAL_WORLD_SIZE=str(args.num_gpus),
    )
    with clean_output():
        _worker(main, args)


def _end_with_launcher() -> None:
    """Stop this process, as SIGTERM does, when the one that has started it is gone.

    A launcher that was killed passes on no signal, and its processes would train on unseen.
    """
    own = multiprocessing.parent_process()  # of `_start`: known even if it has died before
    launcher = os.getppid() if own is None or own.pid is None else own.pid

    def follow() -> None:
        while os.getppid() == launcher:
            time.sleep(_LAUNCHER_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def _check_gpus(wanted: int) -> None:
    if wanted > torch.cuda.device_count():
        raise InputError(
            f"{wanted} processes need as many GPUs; this machine has {torch.cuda.device_count()}. "
            "(CUDA_VISIBLE_DEVICES= runs them on the CPU.)"
        )


def _worker(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run `main(args)` in this process, joined to the others of the run if there are any."""
    try:
        with _reported():
            if _has_peers():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _CTRL_C)
                _end_with_launcher()
                size, rank = (int(os.environ[f"LOCAL_{name}"]) for name in ("WORLD_SIZE", "RANK"))
                has_gpu = torch.cuda.is_available()
                if has_gpu:
                    # srun may show each of its tasks only one GPU, its own.
                    is_task = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
                    own = is_task and torch.cuda.device_count() == 1
                    if not own:
                        _check_gpus(size)
                    torch.cuda.set_device(0 if own else rank)
                _join_peers("nccl" if has_gpu else "gloo")
                comm.create_local_process_group(size)
                # The start method of the launcher, spawn, would also hold for data loaders: a new
                # Python with all imports per worker, at every start of a loader.
                methods = multiprocessing.get_all_start_methods()
                multiprocessing.set_start_method(methods[0], force=True)
                main(args)
            else:
                with handled_by(_interrupt):
                    main(args)
    except SystemExit as end:
        _leave(end.code)
        raise
    _leave(0)


def _join_peers(backend: str) -> None:
    """Make the process group of the run.

    torchrun keeps its store when it starts the processes again, with the addresses of those that
    have ended: each attempt has names of its own in it.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=DEFAULT_TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt_{attempt}", store)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=DEFAULT_TIMEOUT
    )


def _leave(status: Any) -> None:
    """End one process of several without a shutdown of its interpreter.

    The shutdown may abort the process (seen under gloo, about once in twenty runs: "terminate
    called"), because threads of the process group outlive the interpreter.
    """
    if not dist.is_initialized():
        return
    if status == 0:
        comm.synchronize()  # the main process serves the connections of the others
        dist.destroy_process_group()
    atexit._run_exitfuncs()  # ends the workers of data loaders, closes the log
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def _reported() -> Iterator[None]:
    """Turn exceptions of the block into messages and an exit status."""
    try:
        yield
    except _USER_ERRORS as error:
        _print_error(user_message(error))
        sys.exit(_EXIT_STATUS)
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        if os.environ.get("RANK", "0") == "0":
            _print_error(f"Stopped by {signal.Signals(number).name}.")
        sys.exit(128 + number)
    except ProcessExitedException as error:
        if error.exit_code in _STOPPED:
            if error.exit_code < 0:  # it could not tell so itself
                _print_error(f"Stopped by {error.signal_name}.")
            sys.exit(_STOPPED[error.exit_code])
        if error.exit_code != _EXIT_STATUS:  # the process could not report the error itself
            end = error.signal_name or f"status {error.exit_code}"
            _print_error(
                f"Process {error.error_index} of the run ended with {end}. (SIGKILL is what the "
                f"system sends if memory is insufficient.) {_RESUME}"
            )
        sys.exit(_EXIT_STATUS)
    except Exception as error:
        fault = machine_fault(error)
        if comm.get_world_size() > 1:
            time.sleep(_PEER_SECONDS)
        if fault is None:
            _to_log_file("Stopped by an exception:", error)
            raise
        _to_log_file("Stopped by a fault of the machine:", error)
        # The process that has broken it tells why, unless it is on another machine.
        if fault != BROKEN_CONNECTION or comm.get_local_size() < comm.get_world_size():
            files = [h for h in logging.getLogger("brloss_d2").handlers if isinstance(h, LogFile)]
            _print_error(f"{fault}." + "".join(f" {_RESUME} Log: {h.baseFilename}" for h in files))
        sys.exit(_EXIT_STATUS)


def _print_error(message: str) -> None:
    _to_log_file(message)
    with suppress(OSError):  # nobody reads
        sys.stdout.flush()
        print(f"error: {message}", file=sys.stderr, flush=True)


def _to_log_file(message: str, error: Exception | None = None) -> None:
    """Write to log.txt only, if it is open: the terminal gets the message on stderr."""
    logger = logging.getLogger("brloss_d2")
    trace = (type(error), error, error.__traceback__) if error else None
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), trace)
    for handler in logger.handlers:
        if isinstance(handler, LogFile):
            handler.handle(record)


def _interrupt(number: int, frame: object) -> None:
    """Interrupt like Ctrl-C, while no training is going on that could be saved."""
    raise KeyboardInterrupt(number)


def _reset_in_child() -> None:
    """Let signals end a forked process, such as the worker of a data loader, as by default."""
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_reset_in_child)


def _pass_on(number: int, frame: object) -> None:
    """Pass a signal on to the processes that this one has started, which the launcher awaits."""
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, number)
