"""The configs that come with the package, by name, with their criteria and published numbers."""

from brloss_d2.model_zoo.backbones import set_backbone
from brloss_d2.model_zoo.card import describe
from brloss_d2.model_zoo.configs import config_file, get_config, get_criterion, list_criteria
from brloss_d2.model_zoo.entries import ConfigEntry, list_configs, summary
from brloss_d2.model_zoo.hyperparameters import hyperparameters
from brloss_d2.model_zoo.losses import set_loss

__all__ = [
    "ConfigEntry",
    "config_file",
    "describe",
    "get_config",
    "get_criterion",
    "hyperparameters",
    "list_configs",
    "list_criteria",
    "set_backbone",
    "set_loss",
    "summary",
]
