"""What the losses are compared on: data sets, detectors and settings, each with each."""

import argparse
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from brloss_d2.errors import InputError
from comparison.recipe import slim_recipe
from comparison.runs import finished_arguments

_OF_SPLIT = re.compile(r"(instances_)?train(2017|2014)?")  # names no data set
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
        raise InputError(
            f"Several comparisons would have the name {min(same)}, which is that of the training "
            "data: rename the file or folder of one of them."
        )
    return found


def check_output(output: Path, *, several: bool) -> None:
    """Check that a folder of one comparison does not get several, nor the other way round.

    Raises:
        InputError: runs of such a comparison have finished there.
    """
    other = [output] if several else [path.parent for path in sorted(output.glob("*/runs"))]
    for folder in other:
        if finished_arguments(folder):
            raise InputError(
                f"{folder} has finished runs of another comparison: give another --output."
            )


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
    path = Path(data.split(",")[0]).resolve()
    if "," not in data:
        return path.name
    if not _OF_SPLIT.fullmatch(path.stem):
        return path.stem
    return path.parents[path.parent.name == "annotations"].name


def _name(case: Case, all_cases: Sequence[Case]) -> str:
    parts = [data_name(case.data)] if len({c.data for c in all_cases}) > 1 else []
    parts += [case.config.stem] if len({c.config for c in all_cases}) > 1 else []
    keys = [text.rpartition("=")[0].rpartition(".")[2] for text in case.varied]
    values = [text.partition("=")[2] for text in case.varied]
    parts += [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
    return re.sub(r"[^\w.=,+-]", "_", "-".join(parts))
