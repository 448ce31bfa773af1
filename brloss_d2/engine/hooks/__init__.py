"""Hooks of the trainer: checkpoints, evaluation, averages, state, signals, writers."""
