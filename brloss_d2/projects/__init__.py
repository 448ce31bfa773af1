"""Detectors with parts that no other detector uses, from the folder `projects` of the repository.

An installed package holds them in this folder; a working copy leaves them where they are.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

_SOURCES = Path(__file__).parents[2] / "projects"
__path__ += [str(project) for project in sorted(_SOURCES.glob("*")) if project.is_dir()]


def import_from_projects(module: str) -> None:
    """Import a module from each project that has one of that name, so that it registers its parts.

    Args:
        module: name relative to a project, such as `checkpoint_names`.
    """
    for project in iter_modules(__path__, f"{__name__}."):
        name = f"{project.name}.{module}"
        if find_spec(name) is not None:
            import_module(name)
