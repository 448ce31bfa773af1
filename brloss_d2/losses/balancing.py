"""Balancers: weights of the box (or mask) loss against the ranking terms."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from brloss_d2.losses.base import ConfiguredModule, check_numbers

_TINY = 1e-12


class Balancer(ConfiguredModule, ABC):
    """Base class of the weights of a box (or mask) loss against the ranking terms.

    Example:
        >>> class HalfBalancer(Balancer):
        ...     def forward(self, cls_total, box_loss, num_positives):
        ...         return 0.5 * box_loss
        >>> HalfBalancer()(torch.tensor(1.0), torch.tensor(0.5), 3)
        tensor(0.2500)
    """

    @abstractmethod
    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        """Weight the box loss.

        Args:
            cls_total: () sum of the ranking terms of the whole pool.
            box_loss: () mean box loss of the whole pool.
            num_positives: number of positives of the whole pool, () if a tensor.

        Returns:
            () weighted box loss.
        """


class ConstantBalancer(Balancer):
    """Fixed weight.

    Args:
        weight: factor of the box loss, >= 0.

    Example:
        >>> ConstantBalancer(2.0)(torch.tensor(1.0), torch.tensor(0.25), 3)
        tensor(0.5000)
    """

    def __init__(self, weight: float = 1.0):
        super().__init__()
        check_numbers(">= 0", weight=weight)
        self.weight = weight

    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        """Return `weight * box_loss`."""
        return self.weight * box_loss


class SelfBalancer(Balancer):
    """Self-balancing per step (Oksuz et al., ICCV 2021): the box loss takes the ranking's value.

    The *value* of the result is `cls_total` by construction; only its gradient depends on the
    boxes. A box loss of 0 stays 0 with gradient 0.

    Example:
        >>> SelfBalancer()(torch.tensor(0.8), torch.tensor(0.25), 3)
        tensor(0.8000)
    """

    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        """Return `(cls_total / box_loss).detach() * box_loss`."""
        value = box_loss.detach()
        # Of NaN this is NaN, which has to show.
        weight = (cls_total.detach() / value).masked_fill(value <= _TINY, 0.0)
        return weight * box_loss


class EpochSelfBalancer(Balancer):
    """Self-balancing per epoch, of aLRP Loss (Oksuz et al., NeurIPS 2020).

    After every `pools_per_epoch` ranking pools with positives the weight becomes
    `(mean box loss + mean ranking loss) / mean box loss` over these pools. The state is kept in
    buffers and survives a restart. As published, each process keeps its own; processes that share
    a pool have equal ones.

    Args:
        pools_per_epoch: number of ranking pools of this process in an epoch, >= 1.
        initial: weight before the first update, >= 0.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> balancer = EpochSelfBalancer(pools_per_epoch=1)
        >>> balancer(torch.tensor(0.5), torch.tensor(0.25), 3)  # (0.25 + 0.5) / 0.25 * 0.25
        tensor(0.7500)
    """

    weight: Tensor
    cls_sum: Tensor
    box_sum: Tensor
    steps: Tensor

    def __init__(self, *, pools_per_epoch: int, initial: float = 50.0):
        super().__init__()
        check_numbers(">= 1", pools_per_epoch=pools_per_epoch)
        check_numbers(">= 0", initial=initial)
        self.pools_per_epoch = pools_per_epoch
        self.register_buffer("weight", torch.tensor(float(initial)))
        for name in ("cls_sum", "box_sum", "steps"):
            self.register_buffer(name, torch.tensor(0.0))

    def forward(self, cls_total: Tensor, box_loss: Tensor, num_positives: Tensor | int) -> Tensor:
        """Record both losses and return the weighted box loss."""
        with torch.no_grad():
            # Filled on the device: a copy to it would make the host wait.
            counted = torch.zeros_like(self.steps).add_(num_positives) > 0
            self.cls_sum += torch.where(counted, cls_total, 0.0)
            self.box_sum += torch.where(counted, box_loss, 0.0)
            self.steps += counted
            full = self.steps >= self.pools_per_epoch
            weight = 1 + self.cls_sum / self.box_sum.clamp(min=_TINY)
            self.weight.copy_(torch.where(full, weight, self.weight))
            for total in (self.cls_sum, self.box_sum, self.steps):
                total.copy_(torch.where(full, 0.0, total))
        return self.weight.clone() * box_loss
