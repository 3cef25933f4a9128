"""A predictor in the place of a model, so that a module's own test loop judges it."""

from __future__ import annotations

import torch
from torch import Tensor

from segtrail.callbacks.prediction_images import photograph
from segtrail.inference.predictor import SemanticPredictor
from segtrail.models.base import Output, SegmentationModel


class TestTimeModel(SegmentationModel):
    """Answers with a predictor's probabilities, as the logits whose softmax (or sigmoid) they are.

    Args:
        predictor: makes views of an image, averages and refines.
    """

    __test__ = False  # for pytest, which takes the name for a test

    def __init__(self, predictor: SemanticPredictor) -> None:
        super().__init__()
        self.model = predictor.model
        self.mean, self.std = predictor.model.mean, predictor.model.std
        self.predictor = predictor

    def forward(self, image: Tensor, **derived: Tensor) -> Output:
        """Predicts each of (B, 3, H, W) normalized images; derived inputs are computed for each view."""
        pictures = [photograph(one, self.mean, self.std).permute(1, 2, 0).cpu().numpy() for one in image]
        found = torch.stack([self.predictor.probabilities(picture) for picture in pictures])
        logits = found.clamp_min(1e-12).log()
        if self.predictor.num_classes == 1:
            logits = logits[:, 1:] - logits[:, :1]
        return Output(logits)
