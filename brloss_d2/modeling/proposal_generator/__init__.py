"""Proposal generators, registered in detectron2's registry."""

from .rpn import CriterionRPN

__all__ = ["CriterionRPN"]
