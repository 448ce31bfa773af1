"""Detection in images with a trained model; export of models."""

from brloss_d2.prediction.categories import Categories
from brloss_d2.prediction.export import export_onnx, export_torchscript
from brloss_d2.prediction.inputs import find_images
from brloss_d2.prediction.predictor import Predictor, predict
from brloss_d2.prediction.results import OutputFolder, Prediction

__all__ = [
    "Categories",
    "OutputFolder",
    "Prediction",
    "Predictor",
    "export_onnx",
    "export_torchscript",
    "find_images",
    "predict",
]
