"""Collectives for a ranking pool that spans several processes.

Ranking across processes needs no logits of other processes: the positives are gathered (a few
thousand numbers), the cells of the negatives are summed, and every process computes the rest.
"""

import torch
import torch.distributed as dist
from torch import Tensor


class PoolGroup:
    """Processes that share a ranking pool.

    Every process has to make the same calls in the same order, whatever data it has.

    Args:
        group: process group of `torch.distributed`; None is this process alone, which communicates
            nothing.

    Attributes:
        size: number of processes.
        rank: number of this process, in [0, size).
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    def sum(self, x: Tensor) -> Tensor:
        """Sum `x` over all processes; in place if there are several."""
        if self.group is not None:
            dist.all_reduce(x, group=self.group)
        return x

    def total(self, number: int, device: torch.device) -> Tensor | int:
        """Sum one number per process: () int64 on `device`, or the number of this process alone."""
        if self.group is None:
            return number
        return self.sum(torch.full((), number, dtype=torch.int64, device=device))

    def gather(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Concatenate the rows of all processes, in the order of their ranks.

        Args:
            x: (n, C) rows of this process; n may differ between processes.

        Returns:
            `(rows, mine)`: (sum of n, C) rows, and (n,) indices of the rows of this process.
        """
        if self.group is None:
            return x, torch.arange(len(x), device=x.device)
        lengths = x.new_zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(x)
        sizes = self.sum(lengths).tolist()
        # A sum of zero-padded parts: one collective that every back-end has.
        start = sum(sizes[: self.rank])
        rows = x.new_zeros(sum(sizes), x.shape[1])
        mine = torch.arange(start, start + len(x), device=x.device)
        rows[mine] = x
        return self.sum(rows), mine
