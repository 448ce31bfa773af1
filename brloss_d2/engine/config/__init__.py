"""Configs of training: loading, the keys of `train.*`, overrides from the command line."""
