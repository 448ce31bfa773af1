"""Arguments and error handling shared by the programs."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from brloss_d2.errors import InputError
from brloss_d2.utils.faults import machine_fault
from brloss_d2.utils.terminal import clean_output, discard, printable_lines

if TYPE_CHECKING:
    from brloss_d2.prediction import Predictor


def run_program(program: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a program and return its exit status.

    A mistake of the user, which is an `InputError`, or a fault of the machine becomes one line and
    status 1; Ctrl-C becomes status 130.
    """
    with clean_output():
        try:
            status = program(args)
            sys.stdout.flush()
            return status
        except InputError as error:
            message = str(error)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            discard(sys.stdout)
            return 0
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            fault = machine_fault(error)
            if fault is None:
                raise
            message = f"{fault}."
        print(f"error: {message}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable_lines(message))


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that prints the description, a module's docstring, as it is.

    Args:
        description: text in which `%(prog)s` stands for the name of the program.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    try:
        os.getcwd()
    except FileNotFoundError:  # torch would end the program in its own words
        parser.error("the current folder has been deleted: change to another one")
    return parser


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose a trained detector: those of `Predictor.load`."""
    parser.add_argument(
        *("--config-file", "--config"),
        required=True,
        help="config file, config.yaml of a run, or name in the model zoo; or a model with its "
        "weights: folder of a run, or hf://OWNER/NAME",
    )
    parser.add_argument("--weights", help="checkpoint, such as model_final.pth")
    parser.add_argument("--annotations", help="COCO file with the names of the classes")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the config"
    )


def load_predictor(args: argparse.Namespace) -> "Predictor":
    """Load the detector that the arguments of `add_model_arguments` and --score-threshold name.

    Tiles are those of --tile and --overlap, in a program that has them.
    """
    from brloss_d2.engine import choose_device
    from brloss_d2.prediction import Predictor
    from brloss_d2.prediction.hub import is_shared

    choose_device(args.device, key="--device")
    shared = is_shared(args.config_file)
    if args.weights is None and not shared:
        raise InputError("--weights is missing: name a checkpoint, such as model_final.pth.")
    return Predictor.load(
        args.config_file if shared else find_config(args.config_file),
        args.weights,
        score_threshold=args.score_threshold,
        tile=getattr(args, "tile", None),
        overlap=getattr(args, "overlap", None),
        annotations=args.annotations,
        overrides=args.opts,
        device=args.device,
    )


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


def score(text: str) -> float:
    """Convert the text of an argument to a score, 0..1.

    Raises:
        ArgumentTypeError: the number is smaller or larger.
        ValueError: the text is no number.
    """
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def fraction(text: str) -> float:
    """Convert the text of an argument to a fraction between 0 and 1, neither of which it may be.

    Raises:
        ArgumentTypeError: the number is smaller or larger, or 0 or 1.
        ValueError: the text is no number.
    """
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text}")
    return number


def find_config(name: str) -> str:
    """Return the file of a config.

    Args:
        name: path of a file, or name in the model zoo, such as `coco/atss_R_50_FPN_brs_1x`.

    Raises:
        InputError: there is neither a file nor a config of that name.
    """
    if os.path.isfile(name):
        return name
    from brloss_d2.model_zoo import config_file

    try:
        return config_file(name)
    except InputError as error:
        raise InputError(f"Config file missing: {name}. {error}") from error
