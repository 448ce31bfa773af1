"""The pictures of docs/losses.md: what the text says of them holds for the numbers they show."""

import re
from pathlib import Path

import pytest
import torch

from brloss_d2.losses import alrp_loss, ap_loss, bucketed_ap_loss, rank_sort_loss
from tools import draw_losses
from tools.draw_losses import (
    COUNT,
    IOU,
    LABELS,
    LOGITS,
    PICTURES,
    descend,
    gradient,
    task_aligned,
)

DOCS = Path(__file__).parents[2] / "docs"


def test_every_loss_has_its_picture_in_the_text():
    shown = re.findall(r"!\[[^\]]*\]\(losses/(\w+)\.png\)", (DOCS / "losses.md").read_text())
    assert shown == list(PICTURES)
    assert {path.stem for path in (DOCS / "losses").iterdir()} == set(PICTURES)


def test_command_line(tmp_path, capsys):
    assert draw_losses.main(["--losses", "ap", "brs", "--output", str(tmp_path / "new")]) == 0
    for name in ("ap", "brs"):
        assert (tmp_path / "new" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Wrote ap.png, brs.png" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert draw_losses.main(["--losses", "ap", "--output", str(tmp_path / "file" / "x")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("name", sorted(set(PICTURES) - {"ap", "brs"}))
def test_pictures_have_labels(name):
    figure = PICTURES[name]()
    for axes in figure.axes:
        assert axes.get_title(loc="left") or axes.get_title()
        assert axes.get_ylabel()
    assert figure.axes[-1].get_xlabel()


def test_ranking_orders_the_positives_by_iou_with_rs_alone():
    ap, rs = descend(ap_loss)[-1], descend(rank_sort_loss)[-1]
    for scores in (ap, rs):
        assert scores[:COUNT].min() > scores[COUNT:].max()
    assert rs[:COUNT].argsort().equal(IOU.argsort())
    assert ap[:COUNT].argsort().equal(LOGITS[:COUNT].argsort())
    assert not ap[:COUNT].argsort().equal(IOU.argsort())


def test_bad_boxes_above_raise_positives_and_lower_negatives():
    perfect, real = (
        gradient(alrp_loss, "loss_rank", LOGITS, LABELS, e) for e in (0 * IOU, 1 - IOU)
    )
    assert real[0].item() == pytest.approx(perfect[0].item(), rel=1e-14)  # nothing above it
    assert (real[1:COUNT] < perfect[1:COUNT]).all()
    assert (real[COUNT:] >= perfect[COUNT:]).all()


def test_a_bucket_falls_alike():
    falls = gradient(bucketed_ap_loss, "loss_rank", LOGITS, LABELS)[COUNT:]
    assert falls[1] == falls[2] and falls[3] == falls[4]
    assert falls[-1] == 0  # out of reach


def test_the_best_in_score_and_box_rises_to_its_iou_and_the_others_fall():
    scores = torch.tensor([0.35, 0.6, 0.25, 0.5], dtype=torch.float64)
    iou = torch.tensor([0.55, 0.65, 0.75, 0.85], dtype=torch.float64)
    targets = task_aligned(scores, iou)
    assert targets[-1] == pytest.approx(0.85, abs=1e-4)
    assert (targets[:-1] < scores[:-1]).all()
    for score, best in ((0.24, False), (0.25, True)):
        pair = torch.tensor([score, 0.5], dtype=torch.float64)
        target = task_aligned(pair, torch.tensor([0.9, 0.8], dtype=torch.float64))[0]
        assert (target > 0.9 - 1e-4) == best


def test_gradients_of_a_pool_sum_to_zero():
    for loss in (ap_loss, bucketed_ap_loss):
        assert gradient(loss, "loss_rank", LOGITS, LABELS).sum().abs() < 1e-12
    for term in ("loss_rank", "loss_sort"):
        assert gradient(rank_sort_loss, term, LOGITS, LABELS, IOU).sum().abs() < 1e-12
    assert torch.count_nonzero(gradient(rank_sort_loss, "loss_sort", LOGITS, LABELS, IOU)) == COUNT
