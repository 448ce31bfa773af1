"""Faults of machines, each in one sentence."""

import errno

import pytest
import torch

from brloss_d2.utils.faults import machine_fault


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b: The disk is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: No permission"),
        (FileNotFoundError(errno.ENOENT, "No such file", b"a/b"), "a/b: The file or its folder is"),
        (OSError(errno.ELOOP, "Too many levels", "a/b"), "a/b: Too many levels"),
        (MemoryError(), "Memory is insufficient"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "of the GPU"),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"), "Memory is"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset"),
        (RuntimeError("DataLoader worker (pid 71) is killed by signal: Killed. "), "process 71)"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "process 7, 8)"),
        (
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. It is"),
            "Shared memory is insufficient",
        ),
        (RuntimeError("unable to write to file </torch_8_1>: No space left"), "Shared memory"),
        (RuntimeError("basic_ios::clear: iostream error"), "is the disk full?"),
        (RuntimeError("Parent directory out/a does not exist."), "The folder out/a is gone"),
        (RuntimeError("server socket ... port: 29500 ... EADDRINUSE"), "The port is in use"),
        (RuntimeError("[pair.cc] Connection closed by peer [127.0.0.1]:53154"), "has broken"),
    ],
)
def test_a_fault_is_a_sentence(error: Exception, expected: str) -> None:
    message = machine_fault(error)
    assert message is not None
    assert expected in message
    assert "\n" not in message and not message.endswith(".")


@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionResetError(errno.ECONNRESET, "reset"), FileNotFoundError()]
)
def test_a_worker_that_dies_while_it_sends(error: Exception) -> None:
    def _try_get_data() -> None:  # as the function of torch's data loader
        raise error

    assert "worker" not in str(machine_fault(error))
    with pytest.raises(type(error)):
        _try_get_data()
    assert "worker of a data loader" in str(machine_fault(error))


def test_causes_are_looked_at() -> None:
    """torch's writer fails a second time while it closes the file."""
    later = RuntimeError("closed too early")
    later.__context__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert "quota" in str(machine_fault(later))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("a"), OSError("text")])
def test_a_bug_is_none(error: Exception) -> None:
    assert machine_fault(error) is None
