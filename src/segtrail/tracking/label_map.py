"""Label maps as palette PNG files: a person sees the class colors, a program reads the ids back exactly."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

VOID_COLOR = (224, 224, 192)  # of every id that is no class; PASCAL VOC draws void in it


def encode_label_map(label_map: np.ndarray, palette: np.ndarray, ignore_index: int | None = None) -> bytes:
    """Packs class ids into a PNG of mode P, 8 bits a pixel, with the class colors as its palette.

    Args:
        label_map: (H, W) integer or bool ids in 0..255.
        palette: (K, 3) uint8 colors of the ids 0..K-1, K <= 256. All other ids are drawn in the void color.
        ignore_index: drawn in the void color even if it is below K.

    Raises:
        ValueError: if the map is not two-dimensional or holds an id outside 0..255.
    """
    label_map, palette = np.asarray(label_map), np.asarray(palette, np.uint8)
    if label_map.ndim != 2 or label_map.dtype.kind not in "uib":
        raise ValueError(f"a label map is (H, W) of integers, got {label_map.shape} of {label_map.dtype}")
    if palette.ndim != 2 or palette.shape[1] != 3 or len(palette) > 256:
        raise ValueError(f"a palette is (K, 3) with K <= 256, got {palette.shape}")
    if label_map.size and label_map.dtype != np.uint8 and not 0 <= label_map.min() <= label_map.max() <= 255:
        raise ValueError(
            f"a label map holds ids in 0..255, got {label_map.min()}..{label_map.max()}; "
            "map the ignore index to a free id below 256 first"
        )
    image = Image.fromarray(label_map.astype(np.uint8, copy=False))
    image.putpalette(_color_table(palette, ignore_index).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def colorize(label_map: np.ndarray, palette: np.ndarray, ignore_index: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 colors of (H, W) ids, as :func:`encode_label_map` shows them."""
    return _color_table(palette, ignore_index)[np.asarray(label_map, np.uint8)]


def decode_label_map(data: bytes) -> np.ndarray:
    """Class ids of a palette (or grey) PNG, (H, W) uint8."""
    return np.array(_open(data), np.uint8)


def decode_palette(data: bytes) -> np.ndarray:
    """Colors of a palette PNG, (256, 3) uint8; a grey ramp if the file is grey."""
    image = _open(data)
    if image.mode == "L":
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    colors = np.zeros((256, 3), np.uint8)
    entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colors[: len(entries)] = entries
    return colors


def encode_image(image: np.ndarray) -> bytes:
    """PNG of an (H, W, 3) RGB or (H, W) grey uint8 image."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"an image is (H, W) or (H, W, 3) uint8, got {image.shape} of {image.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _color_table(palette: np.ndarray, ignore_index: int | None) -> np.ndarray:
    # always 256 entries: with fewer, Pillow would write fewer bits a pixel and damage high ids
    colors = np.tile(np.array(VOID_COLOR, np.uint8), (256, 1))
    colors[: len(palette)] = palette
    if ignore_index is not None and 0 <= ignore_index <= 255:
        colors[ignore_index] = VOID_COLOR
    return colors


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if image.mode not in ("P", "L"):
        raise ValueError(f"not a label map: a PNG of mode P or L is needed, got mode {image.mode}")
    return image
