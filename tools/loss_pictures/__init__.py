"""The pictures of docs/losses.md, one function each."""

from collections.abc import Callable

from matplotlib.figure import Figure

from loss_pictures.bucketed import draw_bap, draw_brs
from loss_pictures.ranking import draw_alrp, draw_ap, draw_rs
from loss_pictures.scene import STYLE
from loss_pictures.score_based import SCORE_BASED

PICTURES: dict[str, Callable[[], Figure]] = {
    "ap": draw_ap,
    "alrp": draw_alrp,
    "rs": draw_rs,
    "bap": draw_bap,
    "brs": draw_brs,
    **SCORE_BASED,
}

__all__ = ["PICTURES", "STYLE"]
