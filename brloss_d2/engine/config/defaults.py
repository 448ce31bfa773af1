"""Every `train.*` key there is, its default, and the values it may take."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from brloss_d2.errors import InputError

# The smallest value that makes sense; numbers that are not named here may be anything.
_MINIMUM = {
    "max_iter": 1,
    "accumulate": 1,
    "clip_grad_norm": 0,
    "auto_scale_lr": 0,
    "ema.decay": 0,
    "early_stopping.patience": 0,
    "eval_period": 0,
    "log_period": 1,
    "num_threads": 0,
    "checkpointer.period": 1,
    "checkpointer.max_to_keep": 1,
}
_CHOICES = {"amp.dtype": ("float16", "bfloat16"), "best_mode": ("max", "min")}


def train_defaults() -> dict[str, Any]:
    """Return the `train` node of a config: all known keys with their defaults.

    A config file changes values (`train = train_defaults()`, then `train["max_iter"] = ...`);
    keys that are not in here are refused, since nothing would read them.
    """
    return {
        "output_dir": "./output",
        # A file, a URL, for a backbone torchvision://resnet50 or swin://swin_tiny_patch4_window7_224,
        # or "" to start from scratch.
        "init_checkpoint": "",
        # Steps of the optimizer.
        "max_iter": 90_000,
        # Batches of the loader in one step: dataloader.train.total_batch_size times as many images.
        "accumulate": 1,
        # Of the training step; evaluation runs in float32.
        "amp": {"enabled": False, "dtype": "float16"},
        # Matrix products of float32 in TensorFloat-32; convolutions do so by torch's own default.
        "tf32": False,
        # The images in a step that optimizer.lr is meant for: the rate is multiplied by how many
        # times as many there are. 0 leaves it.
        "auto_scale_lr": 0,
        # Largest L2 norm of the gradient of all parameters together; 0 does not clip.
        "clip_grad_norm": 0.0,
        # A moving average of the weights, evaluated and saved beside them.
        "ema": {"enabled": False, "decay": 0.9998},
        # Negative: another one each time.
        "seed": -1,
        # The same numbers from the same seed on a GPU too, as far as torch can; slower.
        "deterministic": False,
        "checkpointer": {"period": 5000, "max_to_keep": 3},
        # Lets --resume go on with another schedule than the run began with.
        "mix_schedules": False,
        # The metric whose best weights stay in model_best.pth; "" for none.
        "best_metric": "bbox/AP",
        # "min" where less is better.
        "best_mode": "max",
        # Evaluations without a better best_metric before training ends; 0 for no limit.
        "early_stopping": {"patience": 0},
        # In iterations; 0 evaluates after the last iteration only.
        "eval_period": 5000,
        "log_period": 20,
        # The project of Weights & Biases to log to as well; "" for none.
        "wandb": "",
        # "auto" is CUDA if there is a GPU, else the CPU.
        "device": "auto",
        # Threads of each process on the CPU; 0 leaves the choice to torch.
        "num_threads": 0,
        "cudnn_benchmark": False,
        "ddp": {
            "find_unused_parameters": False,
            "broadcast_buffers": False,
            "fp16_compression": False,
        },
    }


def complete_train(train: DictConfig) -> DictConfig:
    """Check the keys of a `train` node and add the defaults of those that it lacks.

    Raises:
        InputError: an unknown key, or a value where keys are expected.
    """
    defaults = train_defaults()
    _check_keys(train, defaults, "train")
    return OmegaConf.merge(defaults, train)


def check_train_values(train: DictConfig) -> None:
    """Check the values of a complete `train` node, interpolations included.

    Raises:
        InputError: a value of the wrong type or out of range.
    """
    for key, default in _leaves(train_defaults()):
        value = OmegaConf.select(train, key)
        _check_type(key, value, default)
        if key in _MINIMUM and value < _MINIMUM[key]:
            raise InputError(f"train.{key} is {value}: expected at least {_MINIMUM[key]}.")
        if key in _CHOICES and value not in _CHOICES[key]:
            expected = " or ".join(_CHOICES[key])
            raise InputError(f"train.{key} is {value!r}: expected {expected}.")
    _check_together(train)


def _check_together(train: DictConfig) -> None:
    if train.ema.decay >= 1:
        raise InputError(f"train.ema.decay is {train.ema.decay}: expected less than 1.")
    if not train.early_stopping.patience:
        return
    if not train.best_metric:
        raise InputError("train.early_stopping needs train.best_metric, which it watches.")
    if not train.eval_period:
        raise InputError("train.early_stopping needs train.eval_period, in iterations.")


def _check_keys(node: DictConfig, known: Mapping[str, Any], path: str) -> None:
    for key in node:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {path}.{close[0]}?" if close else ""
            names = ", ".join(known)
            raise InputError(f"There is no key {path}.{key}.{hint} Known keys of {path}: {names}.")
        if isinstance(known[key], dict):
            if not isinstance(node[key], DictConfig):
                names = ", ".join(known[key])
                raise InputError(f"{path}.{key} is {node[key]!r}: expected the keys {names}.")
            _check_keys(node[key], known[key], f"{path}.{key}")


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def _check_type(key: str, value: Any, default: Any) -> None:
    # bool is a subclass of int, and an int is as good as a float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = is_number if isinstance(default, float) else type(value) is type(default)
    if not fits:
        expected = type(default).__name__
        raise InputError(f"train.{key} is {value!r}: expected a value of type {expected}.")
