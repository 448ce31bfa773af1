"""The exception for mistakes that the user can fix. Imports nothing."""


class InputError(Exception):
    """A mistake in what the user supplied: a path, a dataset, a config key, a checkpoint.

    Command-line programs print its message without a traceback and exit with status 1. The
    message says what was got, what was expected and what to do.
    """


def user_message(error: Exception) -> str:
    """Return the message of an error, without the traceback that a worker process adds to it.

    A DataLoader worker process cannot send its exception as it is: torch raises a new one of the
    same type in the main process, whose message is the text of the worker's traceback. The
    original message is what follows the last line of that traceback's frames.
    """
    text = str(error)
    header = f"\n{InputError.__module__}.{InputError.__qualname__}: "
    return text.rpartition(header)[2].strip()
