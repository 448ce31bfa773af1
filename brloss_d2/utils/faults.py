"""Faults of machines, such as a full disk or a killed process, in a sentence each."""

import errno
import os
import re
import traceback

# What the operating system reports by number.
_BY_NUMBER = {
    errno.ENOSPC: "The disk is full. Free space on it",
    errno.EDQUOT: "The disk quota is used up. Delete files",
    errno.EFBIG: "The file is larger than allowed (ulimit -f). Raise the limit",
    errno.EROFS: "The disk is read-only. Choose another folder",
    errno.EACCES: "No permission. Choose another folder, or change its permissions",
    errno.EPERM: "No permission. Choose another folder, or change its permissions",
    errno.ENOENT: "The file or its folder is gone. Restore it",
    errno.EIO: "The disk or the terminal has failed. Check it",
    errno.ESTALE: "The network file system has lost a file. Check it",
    errno.EMFILE: "Too many open files. Raise the limit (ulimit -n), or use fewer workers",
    errno.ENFILE: "Too many open files. Close other programs, or use fewer workers",
    errno.ENOMEM: "Memory is insufficient. Use fewer workers (dataloader.train.num_workers)",
    errno.EADDRINUSE: "The port is in use. Choose another one (--dist-url, MASTER_PORT)",
}
_MEMORY = (
    "Use fewer images per iteration (dataloader.train.total_batch_size) or smaller ones, "
    "train.amp.enabled=True, or fewer workers"
)
_SHARED_MEMORY = (
    "Shared memory is insufficient for the workers of the data loaders. Enlarge /dev/shm (docker "
    "run --shm-size=8g), or set dataloader.train.num_workers=0 dataloader.test.num_workers=0"
)
_WORKER = (
    "A worker of a data loader (process {process}) has died or was killed, as the system does if "
    "memory is insufficient. Use fewer workers (dataloader.train.num_workers)"
)
# Function of torch's data loader that receives from workers; it fails in several ways if one of
# them dies meanwhile. What a worker itself raises comes from another function.
_RECEIVE = "_try_get_data"
BROKEN_CONNECTION = (
    "The connection to another process of the run has broken. Look at the messages of the others"
)
# What torch says in words only; the first match counts.
_BY_WORDS = {
    r"DataLoader worker .*Bus error|unable to (write|open|mmap|allocate) .*(shm|/torch_)": (
        _SHARED_MEMORY
    ),
    r"DataLoader worker \(pid\S* (?P<process>[\d, ]+)\)": _WORKER,
    r"CUDA out of memory|CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED": (
        "The memory of the GPU is insufficient. Use fewer images per iteration "
        "(dataloader.train.total_batch_size; train.accumulate makes up for them) or smaller ones, "
        "or train.amp.enabled=True"
    ),
    r"can't allocate memory|not enough memory|std::bad_alloc": f"Memory is insufficient. {_MEMORY}",
    r"CUDA error: (?P<what>.*(ECC|unspecified launch|lost|hardware).*)": (
        "The GPU has failed ({what}). Check it (nvidia-smi)"
    ),
    r"EADDRINUSE|(?i:address already in use)": _BY_NUMBER[errno.EADDRINUSE],
    r"iostream error|PytorchStreamWriter failed|inline_container.*unexpected pos": (
        "A checkpoint could not be written: is the disk full? Free space on it"
    ),
    r"Parent directory (?P<folder>.+) does not exist": "The folder {folder} is gone. Restore it",
    r"can't start new thread": "Too many threads or processes. Raise the limit (ulimit -u)",
    r"[Cc]onnection (closed|reset) by peer|remote process exited|[Tt]imed out": BROKEN_CONNECTION,
}


def machine_fault(error: BaseException | None) -> str | None:
    """Return what has happened and what to do, if an exception comes from a fault of the machine.

    Args:
        error: exception, whose causes are looked at as well.

    Returns:
        Sentences without the last full stop; None if the exception is of another kind.
    """
    seen = error
    while seen is not None:
        if isinstance(seen, EOFError | OSError):
            frames = traceback.walk_tb(seen.__traceback__)
            if any(frame.f_code.co_name == _RECEIVE for frame, _ in frames):
                return _WORKER.replace(" (process {process})", "")
        if isinstance(seen, OSError) and seen.errno:
            file = f"{os.fsdecode(seen.filename)}: " if seen.filename else ""
            return file + _BY_NUMBER.get(seen.errno, str(seen.strerror))
        if isinstance(seen, MemoryError):
            return f"Memory is insufficient. {_MEMORY}"
        for pattern, message in _BY_WORDS.items() if isinstance(seen, RuntimeError) else ():
            found = re.search(pattern, str(seen))
            if found:
                return message.format(**found.groupdict())
        seen = seen.__cause__ or seen.__context__
    return None
