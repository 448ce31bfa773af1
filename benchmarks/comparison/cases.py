"""What the losses are compared on: data sets, detectors and settings, each with each."""

import argparse
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from brloss_d2.errors import InputError
from comparison.recipe import slim_recipe

_COMMA = re.compile(r",(?![^\[]*\])")  # outside of [1,2]


class Case(NamedTuple):
    """One comparison of losses.

    Attributes:
        data: value of `--data`.
        config: path of the config.
        varied: `key=value` of `--vary`.
        name: name of its folder, made of what differs between the cases; "" for the only one.
    """

    data: str
    config: Path
    varied: tuple[str, ...]
    name: str = ""


def cases(args: argparse.Namespace) -> list[Case]:
    """Return all combinations of data sets, detectors and varied settings.

    Raises:
        InputError: two of them would have the same name, or a setting has no values.
    """
    configs = [*(args.config_file or ()), *map(slim_recipe, args.detector or ())]
    configs = configs or [slim_recipe("atss")]
    varied = [settings(text) for text in args.vary]
    found = [
        Case(data, config, values)
        for data, config, values in itertools.product(
            args.data, configs, itertools.product(*varied)
        )
    ]
    if len(found) > 1:
        found = [case._replace(name=_name(case, found)) for case in found]
    same = {case.name for case in found if [c.name for c in found].count(case.name) > 1}
    if same:
        if not min(same):
            raise InputError("The same comparison is asked for twice.")
        raise InputError(f"Several comparisons would have the name {min(same)}.")
    return found


def settings(text: str) -> list[str]:
    """Split `KEY=A,B` into `KEY=A` and `KEY=B`; commas inside of brackets stay.

    Raises:
        InputError: there is no key, or a value is empty.
    """
    key, _, values = text.partition("=")
    parts = _COMMA.split(values)
    if not key or not all(parts):
        raise InputError(f"--vary {text}: expected KEY=VALUE,VALUE.")
    return [f"{key}={value}" for value in parts]


def data_name(data: str) -> str:
    """Return a short name of a data set: its folder, or the file of the training split."""
    path = Path(data.split(",")[0])
    return path.resolve().name if "," not in data else path.stem


def _name(case: Case, all_cases: Sequence[Case]) -> str:
    parts = [data_name(case.data)] if len({c.data for c in all_cases}) > 1 else []
    parts += [case.config.stem] if len({c.config for c in all_cases}) > 1 else []
    keys = [text.rpartition("=")[0].rpartition(".")[2] for text in case.varied]
    values = [text.partition("=")[2] for text in case.varied]
    parts += [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
    return re.sub(r"[^\w.=,+-]", "_", "-".join(parts))
