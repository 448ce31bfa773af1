"""Statements of detectron2 that fail with current releases, and their replacements."""

from dataclasses import dataclass

from build_backend.errors import BuildError


@dataclass(frozen=True)
class Patch:
    """Replacement of `old` by `new`, exactly `count` times, in the file `path` of the wheel."""

    path: str
    old: str
    new: str
    why: str
    count: int = 1


_COPY = "numpy 2 takes copy=False for 'never copy' and fails if a copy is needed"
_PKG_RESOURCES = "setuptools 82 has no pkg_resources"

PATCHES = (
    Patch(
        "detectron2/layers/mask_ops.py",
        "np.array(mask, copy=False)",
        "np.asarray(mask)",
        _COPY,
    ),
    Patch(
        "detectron2/evaluation/sem_seg_evaluation.py",
        "np.array(Image.open(f), copy=copy, dtype=dtype)",
        "(np.array if copy else np.asarray)(Image.open(f), dtype=dtype)",
        _COPY,
    ),
    Patch(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)",
        "self._rng.sample(tuple(self._fallback_candidates), k=1)",
        "random.sample accepts no sets since Python 3.11",
    ),
    Patch(
        "detectron2/model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "from importlib.resources import files\n",
        _PKG_RESOURCES,
    ),
    Patch(
        "detectron2/model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", '
        'os.path.join("configs", config_path)\n    )',
        'str(files("detectron2.model_zoo") / "configs" / config_path)',
        _PKG_RESOURCES,
    ),
)


def apply_patch(text: str, item: Patch) -> str:
    """Return `text` patched, with a comment at its end that says so (Apache-2.0, section 4b).

    Raises:
        BuildError: `item.old` does not occur exactly `item.count` times.
    """
    found = text.count(item.old)
    if found != item.count:
        raise BuildError(
            f"{item.path} holds {item.old!r} {found} times, expected {item.count} ({item.why})."
        )
    note = f"# Changed at install (compat/detectron2 of brloss_d2): {item.why}.\n"
    text = text.replace(item.old, item.new)
    return text if text.endswith(note) else f"{text}\n{note}"
