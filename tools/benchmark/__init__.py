"""Parts of the loss benchmark. Programs in `tools` import it as `benchmark`."""
