"""Examples in docstrings: they run, and every public object has one."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import LazyConfig
from PIL import Image

import brloss_d2
from brloss_d2 import model_zoo
from brloss_d2.checkpoint import Checkpointer
from tests.helpers.golden_models import load
from tests.helpers.golden_rcnn import detector, small_faster_rcnn

PACKAGE = Path(brloss_d2.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
PUBLIC = {
    **{name: getattr(brloss_d2, name) for name in brloss_d2.__all__},
    **{f"model_zoo.{name}": getattr(model_zoo, name) for name in model_zoo.__all__},
}
WITHOUT_EXAMPLE = {"__version__", "model_zoo"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run and the photos that examples refer to."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "photos").mkdir()
    Image.fromarray(load("faster_brs").tensor("in/raw0").numpy()).save(folder / "photos/a.jpg")
    cfg = small_faster_rcnn("brs")
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 96
    (folder / "output/a").mkdir(parents=True)
    LazyConfig.save(cfg, str(folder / "output/a/config.yaml"))
    Checkpointer(detector(load("faster_brs")), str(folder / "output/a")).save("model_final")
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    failed, count = doctest.testmod(
        import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert count and not failed


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - WITHOUT_EXAMPLE))
def test_public_objects_are_documented(name: str) -> None:
    public = PUBLIC[name]
    text = inspect.getdoc(public) or ""
    assert "Example:" in text and ">>> " in text
    if inspect.isclass(public):
        text += inspect.getdoc(public.__init__) or ""
    else:
        assert "Returns:" in text or text.startswith("Return ")
    if arguments(public):
        assert "Args:" in text or "Attributes:" in text


def arguments(public: Any) -> list[str]:
    """Names of the arguments of a function, or of the constructor of a class."""
    if inspect.isclass(public) and issubclass(public, Exception):
        return []
    parameters = inspect.signature(public).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
