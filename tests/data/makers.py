"""Small data sets in their real formats."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """Write a smooth picture of (height, width) in the format of the suffix; returns RGB as written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.resize(RNG.integers(0, 255, (3, 4, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), image[..., ::-1])
    return image


def index_mask(path: Path, mask: np.ndarray) -> np.ndarray:
    """Write class ids as a grey PNG of 8 or 16 bits, or as ``.npy``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, mask)
    else:
        cv2.imwrite(str(path), mask)
    return mask


def palette_mask(path: Path, mask: np.ndarray) -> np.ndarray:
    """Write class ids as a palette PNG whose colors are far from the ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette([value for index in range(256) for value in (255 - index, 7 * index % 256, 200)])
    image.save(path)
    return mask


def color_mask(path: Path, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Write class ids as an RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(colors[mask].astype(np.uint8)[..., ::-1]))
    return mask


def ids(size: tuple[int, int] = (12, 16), classes: int = 3, void: bool = True) -> np.ndarray:
    """A mask in which every class (and void) occurs."""
    mask = RNG.integers(0, classes, size, np.uint8)
    mask.flat[:classes] = np.arange(classes)
    if void:
        mask[-1, -1] = 255
    return mask


def folder(root: Path, count: int = 10, classes: int = 3) -> dict[str, np.ndarray]:
    """``images/*.jpg`` and ``masks/*.png``; returns the masks by id."""
    masks = {}
    for number in range(count):
        picture(root / "images" / f"s{number:02d}.jpg")
        masks[f"s{number:02d}"] = index_mask(root / "masks" / f"s{number:02d}.png", ids(classes=classes))
    return masks


def write_json(path: Path, content: object) -> Path:
    """Write JSON, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
