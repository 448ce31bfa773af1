"""Error that ends a build with a message instead of a traceback."""


class BuildError(Exception):
    """The wheel cannot be built; the message says why and what to do."""
