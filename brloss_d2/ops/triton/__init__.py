"""Triton kernels: `cells`, `fused` and `ramp` import Triton, this package and `launch` do not."""
