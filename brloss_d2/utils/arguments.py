"""Types of command-line arguments, for `type=` of argparse."""

import argparse


def positive_int(text: str) -> int:
    """Convert the text of an argument to an integer, at least 1.

    Raises:
        ArgumentTypeError: the number is smaller.
        ValueError: the text is no integer.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number
