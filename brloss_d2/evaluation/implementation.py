"""Which implementation of the COCO protocol evaluates: faster-coco-eval where it is installed."""

from importlib.metadata import version

try:
    from faster_coco_eval import COCOeval_faster
except ImportError:
    COCOeval_faster = None


def has_faster() -> bool:
    """Whether faster-coco-eval, which finds the same numbers in C++, can be used."""
    return COCOeval_faster is not None


def describe(package: str) -> str:
    """Return a distribution's name and version for the log."""
    return f"{package} {version(package)}"
