"""Augmentation of the published recipe."""
