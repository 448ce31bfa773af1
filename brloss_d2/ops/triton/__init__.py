"""Triton kernels: `cells` and `ramp` import Triton, this package and `launch` do not."""
