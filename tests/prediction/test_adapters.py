"""Detections for other packages, checked with these packages where they are installed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from brloss_d2.errors import InputError
from brloss_d2.prediction import Predictor
from brloss_d2.prediction.sahi_model import SahiModel
from tests.helpers.bright_squares import square_image


@pytest.fixture
def predictor(run_folder: Path) -> Predictor:
    weights = run_folder / "model_final.pth"
    return Predictor.load(run_folder / "config.yaml", weights, score_threshold=0.3, device="cpu")


def test_supervision(predictor: Predictor) -> None:
    sv = pytest.importorskip("supervision")
    image = square_image()
    found, nothing = predictor([image, np.zeros_like(image)])
    detections = found.to_supervision()
    assert detections.data["class_name"].tolist() == ["bolt", "nut"]
    assert detections.data["category_id"].tolist() == [9, 4]
    assert detections.class_id.tolist() == [1, 0]
    np.testing.assert_array_equal(detections.xyxy, found.boxes)
    np.testing.assert_array_equal(detections.mask, found.masks)
    assert sv.Detections.merge([detections, detections]).with_nms(0.5).class_id.size == 2
    drawn = sv.BoxAnnotator().annotate(image.copy(), detections)
    assert (drawn != image).any()
    assert len(nothing.to_supervision()) == 0


def test_sahi(predictor: Predictor) -> None:
    predict = pytest.importorskip("sahi.predict")
    image = np.full((120, 200, 3), 20, np.uint8)
    image[50:66, 90:106] = 220
    result = predict.get_sliced_prediction(
        image,
        SahiModel(predictor),
        slice_height=64,
        slice_width=64,
        overlap_height_ratio=0.5,
        overlap_width_ratio=0.5,
        verbose=0,
    )
    best = max(result.object_prediction_list, key=lambda found: found.score.value)
    assert (best.category.id, best.category.name) == (9, "bolt")
    assert best.bbox.to_xyxy() == pytest.approx([90, 50, 106, 66], abs=1.5)
    assert best.mask.bool_mask.shape == (120, 200)
    assert best.mask.bool_mask.sum() == pytest.approx(256, rel=0.2)
    strict = SahiModel(predictor, confidence_threshold=0.9)
    assert not predict.get_prediction(image, strict, verbose=0).object_prediction_list


def test_missing_packages(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    monkeypatch.setitem(sys.modules, "sahi", None)
    (found,) = predictor([square_image()])
    with pytest.raises(InputError, match=r"package supervision is missing.*brloss_d2\[supervision"):
        found.to_supervision()
    with pytest.raises(InputError, match=r"package sahi is missing"):
        SahiModel(predictor)
