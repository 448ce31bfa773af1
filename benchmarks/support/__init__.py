"""Parts that several benchmarks share: machine, timing, problems, contenders."""
