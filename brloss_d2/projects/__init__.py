"""Detectors with a single consumer each, kept in the folder `projects` of the repository.

An installed package holds them here; in a working copy they are found where they lie.
"""

from pathlib import Path

_SOURCES = Path(__file__).parents[2] / "projects"
__path__ += [str(project) for project in sorted(_SOURCES.glob("*")) if project.is_dir()]
