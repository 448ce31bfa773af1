"""Call a function in each process of a group: MODULE FUNCTION PROCESSES ARGUMENTS.

The program behind `Programs.spawn`.
"""

import json
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def main(module: str, function: str, processes: str, arguments: str) -> None:
    """Start the processes and wait for them."""
    call = getattr(import_module(module), function)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = int(processes)
    mp.spawn(_run, args=(size, port, call, json.loads(arguments)), nprocs=size)


def _run(rank: int, size: int, port: int, call: Callable[..., None], arguments: list[Any]) -> None:
    torch.set_num_threads(1)
    url = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=size)
    call(*arguments)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
