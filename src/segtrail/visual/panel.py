"""Image, target, prediction and errors side by side, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrail.visual.overlay import as_rgb, legend, overlay

TRUE_POSITIVE = (0, 158, 115)
FALSE_POSITIVE = (213, 94, 0)
FALSE_NEGATIVE = (86, 180, 233)
WRONG = FALSE_POSITIVE


def error_layer(
    image: np.ndarray,
    target: np.ndarray,
    prediction: np.ndarray,
    *,
    positive: int | None = None,
    ignore_index: int = 255,
) -> np.ndarray:
    """Shows where a prediction is wrong, over the image in dimmed gray.

    Args:
        image: (H, W, 3) uint8 RGB or (H, W) uint8 gray.
        target: (H, W) class ids.
        prediction: (H, W) class ids.
        positive: a class id whose true positives, false positives and false negatives get a color
            each; None marks all wrongly classified pixels in one color.
        ignore_index: void of the target, never marked.

    Returns:
        (H, W, 3) uint8.
    """
    gray = cv2.cvtColor(as_rgb(image), cv2.COLOR_RGB2GRAY)
    base = as_rgb((gray // 2 + 32).astype(np.uint8))
    valid = target != ignore_index
    if positive is None:
        layers = [(valid & (target != prediction), WRONG)]
    else:
        is_target, is_predicted = target == positive, prediction == positive
        layers = [
            (valid & is_target & is_predicted, TRUE_POSITIVE),
            (valid & ~is_target & is_predicted, FALSE_POSITIVE),
            (valid & is_target & ~is_predicted, FALSE_NEGATIVE),
        ]
    result = base.copy()
    for where, color in layers:
        result[where] = base[where] // 4 + np.array(color) * 3 // 4
    return result


def panel(
    image: np.ndarray,
    target: np.ndarray | None,
    prediction: np.ndarray,
    palette: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    opacity: float = 0.6,
    ignore_index: int = 255,
) -> np.ndarray:
    """One picture of a sample: image | target | prediction | errors, with a legend below.

    Args:
        image: (H, W, 3) uint8 RGB or (H, W) uint8 gray.
        target: (H, W) class ids, or None where there is no ground truth: then no error tile either.
        prediction: (H, W) class ids.
        palette: (K, 3) uint8 RGB. With two classes, 0 stays transparent and the errors are those of 1.
        names: class names for the legend; None leaves it out.
        opacity: of the label maps over the image.
        ignore_index: the id of void.

    Returns:
        (H', W', 3) uint8.
    """
    hidden, positive = ((0,), 1) if len(palette) == 2 else ((), None)

    def colored(label_map: np.ndarray) -> np.ndarray:
        return overlay(image, label_map, palette, opacity=opacity, hidden=hidden, ignore_index=ignore_index)

    tiles = {"image": as_rgb(image)}
    if target is not None:
        tiles["target"] = colored(target)
    tiles["prediction"] = colored(prediction)
    if target is not None:
        tiles["errors"] = error_layer(image, target, prediction, positive=positive, ignore_index=ignore_index)
    picture = np.concatenate([_captioned(tile, text) for text, tile in tiles.items()], axis=1)
    if names is None:
        return picture
    return np.concatenate([picture, legend(names, palette, picture.shape[1])], axis=0)


def _captioned(tile: np.ndarray, text: str) -> np.ndarray:
    """The tile with a caption above and a white margin of two pixels."""
    height, width = tile.shape[:2]
    framed = Image.new("RGB", (width + 4, height + 20), "white")
    framed.paste(Image.fromarray(tile), (2, 18))
    draw = ImageDraw.Draw(framed)
    draw.text((4, 9), text, fill="black", font=ImageFont.load_default(12), anchor="lm")
    return np.asarray(framed)
