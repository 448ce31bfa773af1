"""Configs by name: in a working copy, and in an installed package."""

import subprocess
import sys
from pathlib import Path

import pytest

from brloss_d2 import model_zoo
from brloss_d2.errors import InputError
from brloss_d2.model_zoo import configs, entries

ROOT = Path(__file__).parents[2]
PUBLISHED = "coco/mask_rcnn_R_50_FPN_rs_1x"


def test_names_are_those_of_the_files() -> None:
    names = [entry.name for entry in model_zoo.list_configs()]
    assert names == sorted(set(names)) and len(names) > 60
    for name in names:
        file = Path(model_zoo.config_file(name))
        assert file.is_file() and file.is_relative_to(ROOT)
        assert "common" not in file.parts
    leaves = {p for p in (ROOT / "configs").rglob("*.py") if "common" not in p.parts}
    assert {f"configs/{n}.py" for n in names} >= {str(p.relative_to(ROOT)) for p in leaves}


def test_get_config_loads_anew() -> None:
    cfg = model_zoo.get_config(PUBLISHED)
    assert set(cfg) == {"model", "optimizer", "lr_multiplier", "dataloader", "train"}
    cfg.train.max_iter = 1
    assert model_zoo.get_config(f"{PUBLISHED}.py").train.max_iter == 87960


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mask_rcnn_R_50_FPN_rs_1x", f"Did you mean {PUBLISHED}"),
        ("coco/mask_rcnn_R_50_FPN_rs_2x", PUBLISHED),
        ("../secret", "brloss-configs"),
        ("common/optim", "brloss-configs"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"no config '{name}'.*{hint}"):
        model_zoo.get_config(name)


def test_every_name_says_what_it_is() -> None:
    for entry in model_zoo.list_configs():
        assert "-" not in (entry.detector, entry.backbone, entry.loss), entry
        leaf = entry.name.rpartition("/")[2]
        assert leaf.startswith(f"{entry.detector}_{entry.backbone}")
        assert entry.backbone.count("FPN") == 0 and entry.detector.count("_R") == 0


def test_published_numbers() -> None:
    (entry,) = model_zoo.list_configs(
        loss="RS", detector="mask_rcnn", backbone="R_50", schedule="1x", data="coco"
    )
    assert (entry.name, entry.backbone) == (PUBLISHED, "R_50")
    assert (entry.box_ap, entry.mask_ap) == ("40.0 (RS Loss)", "36.3")
    assert entry.source.startswith("paper")
    (dcn,) = model_zoo.list_configs(backbone="R_101_DCN", loss="brs")
    assert (dcn.box_ap, dcn.mask_ap, dcn.schedule) == ("47.7", "-", "3x")
    quick = model_zoo.list_configs(data="custom")
    assert quick and all(entry.box_ap == "-" for entry in quick if "quick" in entry.name)


def test_variants() -> None:
    entries = model_zoo.list_configs(variant="iou")
    assert [(e.detector, e.loss, e.schedule) for e in entries] == [
        ("retinanet", loss, "500s_100e") for loss in ("alrp", "ap")
    ]
    (giou,) = model_zoo.list_configs(variant="giou")
    assert (giou.loss, giou.schedule, giou.box_ap) == ("ce", "500s_100e", "38.2")
    names = {entry.name for entry in model_zoo.list_configs(schedule="500s_100e")}
    assert {giou.name, *(e.name for e in entries)} < names


def test_the_table_has_a_row_for_each() -> None:
    entries = model_zoo.list_configs(loss="alrp")
    head, _, *rows = model_zoo.summary(entries).splitlines()
    assert head.split() == ["name", "box", "AP", "mask", "AP"]
    assert [row.split()[0] for row in rows] == [entry.name for entry in entries]
    assert len(model_zoo.summary().splitlines()) == 2 + len(model_zoo.list_configs())


def test_filters_that_fit_nothing() -> None:
    with pytest.raises(InputError, match="no column 'los': expected one of name, data"):
        model_zoo.list_configs(los="rs")
    with pytest.raises(InputError, match=r"loss 'brz'.*: expected one of alrp, ap, bap, brs"):
        model_zoo.list_configs(loss="brz")


def test_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "projects" / "co_detr"
    (folder / "configs" / "common").mkdir(parents=True)
    for name in ("co_deformable_detr_R_50_brs_1x", "co_deformable_detr_swin_l_brs_1x", "common/x"):
        (folder / "configs" / f"{name}.py").write_text("train = dict(max_iter=3)")
    row = "results:\n  co_detr/co_deformable_detr_R_50_brs_1x: {box_ap: 50.1}\n"
    (folder / "configs" / "zoo.yaml").write_text(row)
    (tmp_path / "configs" / "common").mkdir(parents=True)
    (tmp_path / "configs" / "common" / "criteria.py").write_text("brs = dict(rpn=dict())")
    monkeypatch.setattr(configs, "_WORKING_COPY", tmp_path)
    entries.published.cache_clear()
    first, second = model_zoo.list_configs()
    entries.published.cache_clear()
    assert first.name == "co_detr/co_deformable_detr_R_50_brs_1x"
    assert (first.detector, first.backbone, first.box_ap) == ("co_deformable_detr", "R_50", "50.1")
    assert (second.backbone, second.loss, second.box_ap) == ("swin_l", "brs", "-")
    assert model_zoo.get_config(second.name).train.max_iter == 3


def test_an_installed_package_brings_its_configs(tmp_path: Path) -> None:
    """What `pip wheel` packs, without a working copy around it."""
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "build")]
    subprocess.run([*build, "--build-lib", str(tmp_path / "lib")], cwd=ROOT, check=True)
    code = (
        "from brloss_d2 import model_zoo\n"
        f"cfg = model_zoo.get_config({PUBLISHED!r})\n"
        "print(model_zoo.config_file('quick/atss_R_18_FPN_brs_300it'))\n"
        "print(cfg.train.max_iter)\n"
        f"print(*(e.name for e in model_zoo.list_configs(mask_ap='36.3')))\n"
    )
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    file, iterations, name = done.stdout.splitlines()
    assert file.startswith(str(tmp_path / "lib" / "brloss_d2" / "model_zoo" / "files" / "configs"))
    assert (iterations, name) == ("87960", PUBLISHED)
