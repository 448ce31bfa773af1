"""Data-parallel training where one process has no objects at all."""

from pathlib import Path

import pytest

from tests.helpers.programs import Programs
from tests.helpers.two_processes import assert_processes_agree

QUICK = Path(__file__).parents[2] / "configs" / "quick"


@pytest.mark.parametrize(
    ("leaf", "classes"),
    [
        ("faster_rcnn_R_18_FPN_brs", "model.roi_heads.num_classes"),
        ("faster_rcnn_R_18_FPN_ce", "model.roi_heads.num_classes"),
        ("atss_R_18_FPN_brs", "model.num_classes"),
        ("atss_R_18_FPN_focal", "model.num_classes"),
        ("solov2_R_18_FPN_rs", "model.num_classes"),
    ],
)
def test_a_process_without_objects_keeps_up(programs: Programs, leaf, classes, tmp_path):
    assert_processes_agree(programs, QUICK / f"{leaf}_300it.py", [f"{classes}=2"], tmp_path)
