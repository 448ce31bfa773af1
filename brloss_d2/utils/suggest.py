"""Suggestions for misspelled names in error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str,
    known: Iterable[str],
    *,
    count: int = 3,
    cutoff: float = 0.6,
    prefix: str = "",
    first: Iterable[str] = (),
) -> str:
    """Return " Did you mean A or B?" for the known names that are close; empty if none is close.

    Args:
        name: misspelled name.
        known: names that exist.
        count: largest number of suggestions.
        cutoff: smallest similarity of a suggestion, in [0, 1].
        prefix: text in front of each suggestion.
        first: suggestions ahead of the close names, whatever their similarity.

    Example:
        >>> did_you_mean("max_itr", ["max_iter", "seed"], prefix="train.")
        ' Did you mean train.max_iter?'
    """
    close = get_close_matches(name, list(known), n=count, cutoff=cutoff)
    names = list(dict.fromkeys([*first, *close]))[:count]
    return f" Did you mean {' or '.join(prefix + found for found in names)}?" if names else ""
