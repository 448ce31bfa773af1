"""The configs that come with the package, by name."""

from brloss_d2.model_zoo.configs import config_file, get_config
from brloss_d2.model_zoo.table import ConfigEntry, list_configs, summary

__all__ = ["ConfigEntry", "config_file", "get_config", "list_configs", "summary"]
