"""The parts of `benchmarks/compare_losses.py`."""
