"""Parts of the transformer that do not depend on the detection task."""
