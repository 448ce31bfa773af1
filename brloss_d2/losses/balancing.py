"""Balancers: how much the box (or mask) loss weighs against the ranking terms."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_TINY = 1e-12


class Balancer(nn.Module, ABC):
    """`forward(cls_total (), box_loss (), num_positives () or int) -> ()`: the box loss, weighted.

    All three are those of the whole ranking pool.
    """

    @abstractmethod
    def forward(
        self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int
    ) -> Tensor: ...


class ConstantBalancer(Balancer):
    """A fixed weight."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        return self.weight * box_loss

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


class SelfBalancer(Balancer):
    """Per-step self-balancing (Oksuz et al., ICCV 2021): the box loss takes the ranking's value.

    The *value* of the result is therefore `cls_total` by construction; only its gradient tells of
    the boxes. A box loss of 0 stays 0 with gradient 0.
    """

    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        value = box_loss.detach()
        weight = torch.where(value > _TINY, cls_total.detach() / value.clamp(min=_TINY), 0.0)
        # A NaN must show: `where` alone would turn it into 0.
        return (weight + value * 0) * box_loss


class EpochSelfBalancer(Balancer):
    """Self-balancing of aLRP Loss (Oksuz et al., NeurIPS 2020), renewed once an epoch.

    After every `period` ranking pools with positives the weight becomes
    `(mean box + mean ranking loss) / mean box` over those. The state is kept in buffers and
    survives a restart. Processes keep their own, as published; where they share a pool these agree.

    Args:
        period: ranking pools of this process in an epoch, >= 1.
        initial: the weight before the first renewal.
    """

    weight: Tensor
    cls_sum: Tensor
    box_sum: Tensor
    steps: Tensor

    def __init__(self, *, period: int, initial: float = 50.0):
        super().__init__()
        if period < 1:
            raise ValueError(f"period must be >= 1 step, got {period}")
        self.period = period
        self.register_buffer("weight", torch.tensor(float(initial)))
        for name in ("cls_sum", "box_sum", "steps"):
            self.register_buffer(name, torch.tensor(0.0))

    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        if not isinstance(num_positives, Tensor):
            num_positives = self.steps.new_full((), num_positives)
        self._record(cls_total.detach(), box_loss.detach(), num_positives > 0)
        return self.weight.clone() * box_loss

    @torch.no_grad()
    def _record(self, cls_total: Tensor, box_loss: Tensor, counted: Tensor) -> None:
        self.cls_sum += torch.where(counted, cls_total, 0.0)
        self.box_sum += torch.where(counted, box_loss, 0.0)
        self.steps += counted
        full = self.steps >= self.period
        renewed = 1 + self.cls_sum / self.box_sum.clamp(min=_TINY)
        self.weight.copy_(torch.where(full, renewed, self.weight))
        for total in (self.cls_sum, self.box_sum, self.steps):
            total.copy_(torch.where(full, 0.0, total))

    def extra_repr(self) -> str:
        return f"period={self.period}"
