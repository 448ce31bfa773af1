"""Configs: loading, defaults of `train.*`, command-line overrides."""
