"""Meta-architectures, registered in detectron2's registry."""

from brloss_d2.modeling.meta_arch.one_stage import OneStageDetector

__all__ = ["OneStageDetector"]
