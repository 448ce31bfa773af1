"""The configs that come with the package, by name, with their criteria and published numbers."""

from brloss_d2.model_zoo.card import Schedule, describe, schedule_of
from brloss_d2.model_zoo.configs import (
    config_file,
    config_files,
    get_config,
    get_criterion,
    list_criteria,
)
from brloss_d2.model_zoo.entries import ConfigEntry, list_configs, published, summary

__all__ = [
    "ConfigEntry",
    "Schedule",
    "config_file",
    "config_files",
    "describe",
    "get_config",
    "get_criterion",
    "list_configs",
    "list_criteria",
    "published",
    "schedule_of",
    "summary",
]
