"""Kinds of command-line arguments, for `type=` of argparse."""

import argparse


def positive_int(text: str) -> int:
    """An integer from 1 on.

    Raises:
        ArgumentTypeError: it is smaller.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number
