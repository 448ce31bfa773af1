"""Proposal generators, registered in detectron2's registry."""

from brloss_d2.modeling.proposal_generator.rpn import CriterionRPN

__all__ = ["CriterionRPN"]
