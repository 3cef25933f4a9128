"""Predictions as files: label maps that decode to the exact class ids, and pictures for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segtrail.inference.predictor import Prediction
from segtrail.tracking.label_map import encode_label_map
from segtrail.visual.overlay import overlay


class PredictionWriter:
    """Writes predictions under a folder.

    ``label_maps/NAME.png`` holds class ids in a palette PNG (16-bit gray where there are more than
    256 classes), ``overlays/NAME.png`` the classes over the image, ``confidence/NAME.png`` the winning
    probability in 0..255; ``classes.txt`` names the ids, one a line.

    Args:
        folder: made if it does not exist.
        class_names: K names.
        palette: (K, 3) uint8 RGB.
        overlays: write overlays.
        confidence: write confidences.
        opacity: of the classes in overlays.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        palette: np.ndarray,
        *,
        overlays: bool = True,
        confidence: bool = False,
        opacity: float = 0.5,
    ) -> None:
        self.folder = folder
        self.palette = np.asarray(palette, np.uint8)
        self.overlays = overlays
        self.confidence = confidence
        self.opacity = opacity
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")

    def write(self, name: str, image: np.ndarray, prediction: Prediction) -> None:
        """Writes the files of one image.

        Args:
            name: relative path without suffix.
            image: (H, W, 3) uint8 RGB.
            prediction: of the image.
        """
        self._path("label_maps", name).write_bytes(self._encode(prediction.label_map))
        if self.overlays:
            colored = overlay(
                image, prediction.label_map, self.palette, opacity=self.opacity, ignore_index=-1
            )
            Image.fromarray(colored).save(self._path("overlays", name), compress_level=1)
        if self.confidence:
            levels = (prediction.confidence * 255).round().astype(np.uint8)
            Image.fromarray(levels).save(self._path("confidence", name))

    def _encode(self, label_map: np.ndarray) -> bytes:
        if len(self.palette) <= 256:
            return encode_label_map(label_map, self.palette)
        encoded, data = cv2.imencode(".png", label_map.astype(np.uint16))
        assert encoded
        return data.tobytes()

    def _path(self, kind: str, name: str) -> Path:
        path = self.folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
