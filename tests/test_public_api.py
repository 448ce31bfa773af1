"""`import brloss_d2`: what it shows, and when it imports it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import brloss_d2
from brloss_d2 import criteria, losses


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    assert dir(brloss_d2) == sorted(brloss_d2.__all__)
    assert {*losses.__all__, *criteria.__all__} <= set(brloss_d2.__all__)
    for name in brloss_d2.__all__:
        assert getattr(brloss_d2, name) is not None
    assert brloss_d2.ap_loss is losses.ap_loss


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'brloss_d2' has no attribute 'ap_los'"):
        _ = brloss_d2.ap_los
    assert not hasattr(brloss_d2, "__wrapped__")


def test_nothing_is_imported_before_it_is_used() -> None:
    run(
        "import sys, brloss_d2\n"
        "assert not {'torch', 'numpy', 'detectron2', 'brloss_d2.losses'} & set(sys.modules)\n"
        "assert brloss_d2.APLoss.__module__ == 'brloss_d2.losses.ap'\n"
        "assert 'torch' in sys.modules and 'brloss_d2.criteria' not in sys.modules\n"
        "assert brloss_d2.RankingCriterion.__module__ == 'brloss_d2.criteria.ranking'\n"
        "assert not {'detectron2', 'brloss_d2.prediction'} & set(sys.modules)\n"
        "assert brloss_d2.predict.__module__ == 'brloss_d2.prediction.predictor'\n"
        "assert brloss_d2.model_zoo.get_config\n"
    )


def test_losses_and_criteria_come_without_detectron2() -> None:
    run(
        "import sys\n"
        "for name in ('detectron2', 'triton', 'torchvision', 'fvcore', 'omegaconf'):\n"
        "    sys.modules[name] = None\n"
        "from brloss_d2 import APLoss, RankingCriterion, rank_sort_loss\n"
    )


def test_type_checkers_see_what_programs_see() -> None:
    """The imports for type checkers and `__all__` name the same things."""
    tree = ast.parse(Path(brloss_d2.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in block.body for alias in node.names}
    assert imported | {"InputError", "__version__"} == set(brloss_d2.__all__)


def test_the_version_is_the_same_everywhere() -> None:
    root = Path(brloss_d2.__file__).parents[1]
    assert f"\nversion: {brloss_d2.__version__}\n" in (root / "CITATION.cff").read_text()


def test_packages_are_attributes() -> None:
    run("import brloss_d2; brloss_d2.ops.PoolGroup, brloss_d2.losses.APLoss, brloss_d2.modeling")
