"""Exception for mistakes that the user can fix. This module imports nothing."""


class InputError(Exception):
    """Mistake in what the user supplied: a path, a dataset, a config key, a checkpoint.

    Command-line programs print its message without a traceback and exit with status 1. The
    message says what was got, what was expected and what to do.

    Example:
        >>> from brloss_d2 import InputError, model_zoo
        >>> try:
        ...     model_zoo.get_config("atss_R_50_FPN_brs_1x")
        ... except InputError as error:
        ...     print(error)
        There is no config 'atss_R_50_FPN_brs_1x'. Did you mean coco/atss_R_50_FPN_brs_1x? ...
    """


class NothingToAnalyzeError(InputError):
    """A run without evaluated detections, or with none that is correct."""


def user_message(error: Exception) -> str:
    """Return the plain message of an `InputError`, wherever it was raised.

    A DataLoader worker process cannot send its exception as it is: torch raises a new one of the
    same type in the main process, whose message is the text of the worker's traceback. The
    original message is what follows the last line of that traceback's frames.
    """
    text = str(error)
    header = f"\n{InputError.__module__}.{InputError.__qualname__}: "
    return text.rpartition(header)[2].strip()
