"""Image and mask files to arrays, with faults named instead of passed on."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from kornia_rs.io import decode_image_png_u8
from PIL import Image, ImageFile, UnidentifiedImageError

from segtrail.data.types import DataError

Exif = Literal["ignore", "apply"]
"""What to do with the orientation tag of a photograph.

``ignore`` takes the pixels as stored, as Pillow, torchvision and the COCO API do; ``apply`` turns
them upright first, as OpenCV, browsers and most labeling tools do. Masks carry no tag: the right
choice is the one under which image and mask have the same size and fit.
"""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})

_ORIENTATION = 0x0112
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_START, _JPEG_END, _PNG_END = b"\xff\xd8", b"\xff\xd9", b"IEND"


def read_bytes(path: Path) -> bytes:
    """Whole file.

    Raises:
        DataError: the file is absent, unreadable or empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: the file is empty; copy it again")
    return data


def read_image(path: Path, *, exif: Exif = "ignore", min_side: int | None = None) -> np.ndarray:
    """Decode a picture.

    Args:
        path: any format that OpenCV reads; 16-bit and grey pictures become 8-bit RGB.
        exif: see :data:`Exif`.
        min_side: decode a JPEG at the smallest of 1/2, 1/4, 1/8 of its size whose short side
            still has that many pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: absent, truncated or not a picture.
    """
    return decode_image(read_bytes(path), path, exif=exif, min_side=min_side)


def decode_image(
    data: bytes, path: Path | str, *, exif: Exif = "ignore", min_side: int | None = None
) -> np.ndarray:
    """:func:`read_image` of bytes; ``path`` is what messages call them."""
    flags = cv2.IMREAD_COLOR_RGB
    if min_side is not None and data[:2] == _JPEG_START:
        flags = _reduced_flag(path, data, min_side)
    if exif == "ignore":
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    if (image := _fast_png(data, color_type=2)) is not None:
        return image
    # OpenCV fills what a truncated file lacks with grey and says nothing, so look at the end first.
    image = None if _may_be_truncated(data) else _cv2_decode(data, flags)
    if image is None:
        _raise_if_broken(path, data)
        image = _cv2_decode(data, flags)
    if image is None:
        raise DataError(f"{path}: OpenCV cannot decode this file; convert it to PNG or JPEG")
    return image


def image_size(path: Path, *, exif: Exif = "ignore") -> tuple[int, int]:
    """(height, width) from the header alone."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = exif == "apply" and picture.getexif().get(_ORIENTATION, 1) >= 5
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error
    return (width, height) if turned else (height, width)


def orientation(path: Path) -> int:
    """EXIF orientation tag, 1 where there is none."""
    with Image.open(path) as picture:
        return int(picture.getexif().get(_ORIENTATION, 1))


def read_labels(path: Path) -> np.ndarray:
    """Decode a mask without touching its values.

    Palette pictures come as indices: OpenCV would return their colors.

    Returns:
        (H, W) uint8 or int32 for index, grey and 1-bit pictures and ``.npy`` files, (H, W, 3)
        uint8 for color.

    Raises:
        DataError: absent, truncated, or not a picture.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    return decode_labels(read_bytes(path), path)


def decode_labels(data: bytes, path: Path | str) -> np.ndarray:
    """:func:`read_labels` of the bytes of a picture; ``path`` is what messages call them."""
    if (fast := _fast_png(data, color_type=0)) is not None:
        return fast[..., 0]
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode in ("RGBA", "CMYK", "YCbCr"):
                labels = np.array(picture.convert("RGB"))
            elif picture.mode in ("LA", "PA"):
                labels = np.array(picture.getchannel(0))
            else:
                labels = np.array(picture)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: broken or truncated mask ({error}); copy it again") from error
    return _compact(labels)


def _read_npy(path: Path) -> np.ndarray:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable array ({error})") from error
    if labels.ndim != 2 or labels.dtype.kind not in "biu":
        raise DataError(
            f"{path}: shape {labels.shape} of {labels.dtype}; a mask is a 2-D array of integer class ids"
        )
    return _compact(labels)


def _compact(labels: np.ndarray) -> np.ndarray:
    """Smallest of uint8 and int32 that keeps every value."""
    if labels.dtype == np.uint8:
        return labels
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    small = labels.size == 0 or (labels.min() >= 0 and labels.max() <= 255)
    return labels.astype(np.uint8 if small else np.int32)


def _fast_png(data: bytes, color_type: int) -> np.ndarray | None:
    """(H, W, C) uint8 of an 8-bit PNG of that color type, 0 for grey or 2 for RGB; None if it is not one.

    Broken files give None too: the slow way, which comes next, says what is wrong with them.
    """
    # The header chunk: width and height in bytes 16 to 23, then bit depth and color type.
    if data[:8] != _PNG_MAGIC or data[24:26] != bytes([8, color_type]) or b"tRNS" in data[:4096]:
        return None
    width, height = struct.unpack(">II", data[16:24])
    try:
        return decode_image_png_u8(data, (height, width), "rgb" if color_type else "mono")
    except Exception:  # what the library raises, literally
        return None


def _cv2_decode(data: bytes, flags: int) -> np.ndarray | None:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    # There is no reduced decoding to RGB.
    return (
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
        if flags > 0 and flags & 0x70 and image is not None
        else image
    )


def _reduced_flag(path: Path | str, data: bytes, min_side: int) -> int:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            short_side = min(picture.size)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: broken or truncated picture ({_reason(error)}); copy it again") from error
    for factor, flag in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if short_side // factor >= min_side:
            return int(flag)
    return int(cv2.IMREAD_COLOR_RGB)


def _may_be_truncated(data: bytes) -> bool:
    if data[:2] == _JPEG_START:
        return _JPEG_END not in data[-64:]
    if data[:8] == _PNG_MAGIC:
        return _PNG_END not in data[-64:]
    return False


def _raise_if_broken(path: Path | str, data: bytes) -> None:
    """Let Pillow, which is strict, say what is wrong."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        warnings.warn("PIL.ImageFile.LOAD_TRUNCATED_IMAGES hides truncated pictures", stacklevel=3)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: broken or truncated picture ({_reason(error)}); copy it again") from error


def _reason(error: Exception) -> str:
    return "format not recognized" if isinstance(error, UnidentifiedImageError) else str(error)
