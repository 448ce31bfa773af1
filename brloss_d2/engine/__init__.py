"""Training and evaluation: configs, processes, the training loop and its hooks."""

from brloss_d2.engine.config.defaults import train_defaults, train_keys
from brloss_d2.engine.config.load import load_config
from brloss_d2.engine.config.overrides import apply_overrides
from brloss_d2.engine.config.test_augmentation import set_tiles, with_test_augmentation
from brloss_d2.engine.launch import in_agreement, run
from brloss_d2.engine.optimizer import StepCosineParamScheduler, params_by_name
from brloss_d2.engine.prepare import choose_device
from brloss_d2.engine.train import main
from brloss_d2.engine.trainer import NonFiniteLossError, Trainer

__all__ = [
    "NonFiniteLossError",
    "StepCosineParamScheduler",
    "Trainer",
    "apply_overrides",
    "choose_device",
    "in_agreement",
    "load_config",
    "main",
    "params_by_name",
    "run",
    "set_tiles",
    "train_defaults",
    "train_keys",
    "with_test_augmentation",
]
