"""The keys of `train.*`: defaults, descriptions, and the values that they may have."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from tabulate import tabulate

from brloss_d2.errors import InputError
from brloss_d2.utils.suggest import did_you_mean
from brloss_d2.utils.text import printable

# Types of a task, a metric, its value and the tolerance.
_EXPECTED = [[str, str, a, b] for a in (int, float) for b in (int, float)]


def _key(
    default: Any,
    text: str,
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field that knows its description and the values that it may have."""
    values = {"least": at_least, "most": at_most, "choices": choices}
    return field(default=default, metadata={"text": text, **values})


@dataclass(frozen=True)
class _AMP:
    enabled: bool = _key(False, "mixed precision in the training step; evaluation is in float32")
    dtype: str = _key(
        "float16", "type of mixed precision, float16 or bfloat16", choices=("float16", "bfloat16")
    )


@dataclass(frozen=True)
class _EMA:
    enabled: bool = _key(False, "moving average of the weights, evaluated and saved next to them")
    decay: float = _key(0.9998, "decay of the average per iteration, less than 1", at_least=0)


@dataclass(frozen=True)
class _Checkpointer:
    period: int = _key(5000, "iterations between checkpoints", at_least=1)
    max_to_keep: int = _key(3, "number of the latest checkpoints to keep", at_least=1)


@dataclass(frozen=True)
class _EarlyStopping:
    patience: int = _key(
        0, "evaluations without a better best_metric before training ends; 0: no limit", at_least=0
    )


@dataclass(frozen=True)
class _DDP:
    find_unused_parameters: bool = _key(False, "option of torch's DistributedDataParallel")
    broadcast_buffers: bool = _key(False, "option of torch's DistributedDataParallel")
    fp16_compression: bool = _key(False, "gradients travel between processes in float16")


@dataclass(frozen=True)
class _Train:
    output_dir: str = _key("./output", "folder for everything that a run writes")
    init_checkpoint: str = _key(
        "",
        "file, URL, torchvision://resnet50 or swin://swin_tiny_patch4_window7_224 (backbones); "
        "empty: from scratch",
    )
    freeze: tuple[str, ...] = _key(
        (), "parts of the model that are not trained, such as [backbone]; names of its modules"
    )
    max_iter: int = _key(90_000, "length of the training in steps of the optimizer", at_least=1)
    accumulate: int = _key(1, "batches of the data loader per step", at_least=1)
    amp: _AMP = _AMP()
    tf32: bool = _key(
        False, "matrix products of float32 in TensorFloat-32; convolutions have it by default"
    )
    channels_last: bool = _key(
        False, "channels are last in the memory of features and weights, as tensor cores prefer"
    )
    compile: bool = _key(False, "torch.compile of the backbone with its feature pyramid")
    activation_checkpointing: bool = _key(
        False,
        "features of the backbone are computed again in the backward pass: slower, less memory",
    )
    auto_scale_lr: int = _key(
        0,
        "images per step that optimizer.lr is meant for; another number scales the rate; 0: never",
        at_least=0,
    )
    clip_grad_norm: float = _key(
        0.0, "largest L2 norm of the whole gradient; 0: no clipping", at_least=0
    )
    ema: _EMA = _EMA()
    seed: int = _key(
        -1, "seed of all random numbers; negative: a new one per run", at_most=2**31 - 1
    )
    deterministic: bool = _key(
        False, "same numbers from the same seed on a GPU, as far as torch can; slower"
    )
    checkpointer: _Checkpointer = _Checkpointer()
    mix_schedules: bool = _key(False, "lets --resume continue with another schedule")
    best_metric: str = _key(
        "bbox/AP", "metric whose best weights are kept in model_best.pth; empty: none"
    )
    best_mode: str = _key(
        "auto",
        "max or min: which value of it is best; auto: min for oLRP and its parts, max for others",
        choices=("auto", "max", "min"),
    )
    early_stopping: _EarlyStopping = _EarlyStopping()
    eval_period: int = _key(
        5000, "iterations between evaluations; 0: only after the last iteration", at_least=0
    )
    expected_results: tuple[tuple[str, str, float, float], ...] = _key(
        (),
        "what the evaluation at the end must find, else exit status 1: [[bbox,AP,78,5]] is 78 ± 5",
    )
    log_period: int = _key(20, "iterations between lines of the log", at_least=1)
    wandb: str = _key("", "project of Weights & Biases to log to; empty: none")
    check_images: bool = _key(
        True, "images of a custom dataset are read through before training, to find damaged ones"
    )
    show_data: bool = _key(
        True, "data.png shows custom training data as the model gets them, before the training"
    )
    device: str = _key("auto", "auto, cpu or cuda; auto: CUDA if there is a GPU")
    num_threads: int = _key(0, "CPU threads per process; 0: choice of torch", at_least=0)
    cudnn_benchmark: bool = _key(False, "cuDNN measures which algorithms are fastest")
    ddp: _DDP = _DDP()


def train_defaults() -> dict[str, Any]:
    """Return the `train` node of a config: all known keys with their defaults.

    A config file changes values (`train = train_defaults()`, then `train["max_iter"] = ...`);
    unknown keys are refused, since nothing would read them.

    Example:
        >>> train_defaults()["amp"]
        {'enabled': False, 'dtype': 'float16'}
    """
    return asdict(_Train())


def train_keys() -> str:
    """Return a Markdown table of all `train.*` keys with their defaults and descriptions."""
    empty: dict[Any, str] = {"": '""', (): "[]"}
    rows = [
        (f"`{path}`", f"`{empty.get(key.default, key.default)}`", key.metadata["text"])
        for path, key in _leaves(_Train())
    ]
    return tabulate(rows, ["key of `train`", "default", "meaning"], "pipe", disable_numparse=True)


def complete_train(train: DictConfig) -> DictConfig:
    """Check the keys of a `train` node and add the missing ones with their defaults.

    Raises:
        InputError: a key is unknown, or has a value although it is a group of keys.
    """
    defaults = train_defaults()
    _check_keys(train, defaults, "train")
    return OmegaConf.merge(OmegaConf.create(defaults), train)  # type: ignore[return-value]


def check_train_values(train: DictConfig) -> None:
    """Check the values of a complete `train` node, interpolations included.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """
    for path, key in _leaves(_Train()):
        value, default = OmegaConf.select(train, path), key.default
        least, most, choices = (key.metadata[name] for name in ("least", "most", "choices"))
        # OmegaConf.structured would take 3 for a string and "yes" for a boolean. For Python a bool
        # is an int, and an int is as good as a float.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if path == "expected_results":
            rows = value if isinstance(value, ListConfig) else [value]
            if not all(isinstance(r, ListConfig) and [*map(type, r)] in _EXPECTED for r in rows):
                raise InputError(
                    f"train.{path} is {value!r}: expected a list of tasks, metrics, values and "
                    "tolerances, such as [[bbox,AP,78,5]]."
                )
            continue
        if isinstance(default, tuple):
            if not (isinstance(value, ListConfig) and all(type(x) is str and x for x in value)):
                raise InputError(f"train.{path} is {value!r}: expected a list of names, [a,b].")
            continue
        if not (is_number if isinstance(default, float) else type(value) is type(default)):
            expected = type(default).__name__
            raise InputError(f"train.{path} is {value!r}: expected a value of type {expected}.")
        if is_number and not value >= least:  # NaN is refused too
            raise InputError(f"train.{path} is {value}: expected at least {least}.")
        if is_number and value > most:
            raise InputError(f"train.{path} is {value}: expected at most {most}.")
        if isinstance(value, str) and any(char < " " for char in value):
            text = (
                f"train.{path} is '{printable(value)}': expected text without tabs and line ends."
            )
            raise InputError(text)
        if choices and value not in choices:
            raise InputError(f"train.{path} is {value!r}: expected {' or '.join(choices)}.")
    if train.ema.decay >= 1:
        raise InputError(f"train.ema.decay is {train.ema.decay}: expected less than 1.")
    if train.compile and train.activation_checkpointing:
        raise InputError(
            "train.compile decides itself what is computed again in the backward pass: leave out "
            "train.activation_checkpointing, or train.compile."
        )
    if train.early_stopping.patience and not train.best_metric:
        raise InputError("train.early_stopping needs train.best_metric, which it watches.")
    if train.early_stopping.patience and not train.eval_period:
        raise InputError("train.early_stopping needs train.eval_period, in iterations.")


def _check_keys(node: DictConfig, known: Mapping[str, Any], path: str) -> None:
    for key in map(str, node):
        if key not in known:
            hint = did_you_mean(key, known, count=1, prefix=f"{path}.")
            names = ", ".join(known)
            raise InputError(f"There is no key {path}.{key}.{hint} Known keys of {path}: {names}.")
        if isinstance(known[key], dict):
            if not isinstance(node[key], DictConfig):
                names = ", ".join(known[key])
                raise InputError(f"{path}.{key} is {node[key]!r}: expected the keys {names}.")
            _check_keys(node[key], known[key], f"{path}.{key}")


def _leaves(keys: Any, path: str = "") -> Iterator[tuple[str, Field]]:
    for key in fields(keys):
        if is_dataclass(key.default):
            yield from _leaves(key.default, f"{path}{key.name}.")
        else:
            yield path + key.name, key
