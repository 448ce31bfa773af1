"""The parts of `tools/compare_losses.py`."""
