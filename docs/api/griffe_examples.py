"""Extension of Griffe, which reads the docstrings for the API pages."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Read `Example:` like `Examples:`, whose doctests Griffe knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section of an object that was loaded."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
