"""Outlines drawn by people: labelme JSON and YOLO segmentation text files."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError
from pycocotools import mask as coco_mask

from segtrail.data.files import Exif, image_size
from segtrail.data.objects import make_instances, paint_large_to_small
from segtrail.data.types import DataError, Instances

LABELME_VOID = "__ignore__"
BACKGROUNDS = ("background", "_background_", "__background__", "bg")


class LabelmeMasks:
    """Shapes of labelme files, later ones on top; label ``__ignore__`` is void.

    Args:
        names: class names; what no shape covers is the class called background, or void without one.
        ignore_index: value of void pixels.
    """

    def __init__(self, names: Sequence[str], ignore_index: int) -> None:
        self._class_of = {name: index for index, name in enumerate(names)}
        self._class_of[LABELME_VOID] = ignore_index
        self._background = background_of(names, ignore_index)
        self._void = ignore_index

    def mask(self, path: Path, image: Path) -> np.ndarray:
        """(H, W) int32 class ids."""
        content = read_labelme(path)
        mask = np.full(_labelme_size(content, path), self._background, np.int32)
        for shape in content["shapes"]:
            mask[rasterize(shape, mask.shape, path)] = self._label(shape, path)
        return mask

    def objects(self, path: Path, image: Path) -> Instances:
        """One object a shape, or a group of shapes with equal label and group id."""
        content = read_labelme(path)
        size = _labelme_size(content, path)
        masks: dict[Any, np.ndarray] = {}
        labels: dict[Any, int] = {}
        for number, shape in enumerate(content["shapes"]):
            label = self._label(shape, path)
            if label in (self._void, self._background):
                continue
            group = shape.get("group_id")
            key = (label, "shape", number) if group is None else (label, "group", group)
            masks[key] = masks.get(key, False) | rasterize(shape, size, path)
            labels[key] = label
        return make_instances(list(masks.values()), list(labels.values()), [False] * len(masks), size)

    def _label(self, shape: dict[str, Any], path: Path) -> int:
        try:
            return self._class_of[shape["label"]]
        except KeyError as error:
            known = ", ".join(name for name in self._class_of if name != LABELME_VOID)
            raise DataError(f"{path}: label {shape.get('label')!r} is none of the classes {known}") from error


class YoloMasks:
    """Lines ``class x1 y1 x2 y2 ...`` with coordinates in 0..1, small objects on top.

    Args:
        names: class names; a first one called background is no class of the files, so that their
            class 0 is id 1.
        ignore_index: value of pixels without a class, where there is no background.
        exif: how the images are read; their size scales the coordinates.
    """

    def __init__(self, names: Sequence[str], ignore_index: int, exif: Exif) -> None:
        self._background = background_of(names, ignore_index)
        self._offset = 1 if self._background == 0 else 0
        self._num_classes, self._void, self._exif = len(names), ignore_index, exif

    def mask(self, path: Path, image: Path) -> np.ndarray:
        """(H, W) int32 class ids."""
        return paint_large_to_small(self.objects(path, image), self._background, self._void)

    def objects(self, path: Path, image: Path) -> Instances:
        """One object a line."""
        height, width = image_size(image, exif=self._exif)
        codes, labels = [], []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                values = [float(value) for value in line.split()]
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            label = int(values[0]) + self._offset
            points = np.array(values[1:])
            if len(points) < 6 or len(points) % 2:
                raise DataError(
                    f"{path}, line {number}: {len(points)} coordinates are no outline (a box has 4): "
                    f"export segmentation labels"
                )
            if not 0 <= label < self._num_classes:
                raise DataError(
                    f"{path}, line {number}: class {int(values[0])} of {self._num_classes - self._offset}"
                )
            if points.min() < -0.01 or points.max() > 1.01:
                raise DataError(
                    f"{path}, line {number}: coordinate {points.max():g} is not in 0..1; normalize them"
                )
            polygon = (points.reshape(-1, 2) * (width, height)).ravel().tolist()
            codes += coco_mask.frPyObjects([polygon], height, width)
            labels.append(label)
        masks = (
            coco_mask.decode(codes).transpose(2, 0, 1) if codes else np.zeros((0, height, width), np.uint8)
        )
        return make_instances(masks, labels, [False] * len(labels), (height, width))


def background_of(names: Sequence[str], ignore_index: int) -> int:
    """Id of the class that is called background, else ``ignore_index``."""
    return next((index for index, name in enumerate(names) if name in BACKGROUNDS), ignore_index)


def labels_of(path: Path) -> set[str]:
    """Labels in a labelme file, without the void one."""
    return {str(shape["label"]) for shape in read_labelme(path)["shapes"]} - {LABELME_VOID}


def read_labelme(path: Path) -> dict[str, Any]:
    """Content of a labelme file.

    Raises:
        DataError: no JSON, or no list of shapes.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error}); copy it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        what = "; COCO files are read by dataset=coco" if "annotations" in content else ""
        raise DataError(f"{path}: no list 'shapes', so not a labelme file{what}")
    return content


def _labelme_size(content: dict[str, Any], path: Path) -> tuple[int, int]:
    try:
        return int(content["imageHeight"]), int(content["imageWidth"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no imageHeight and imageWidth; save it with labelme again") from error


def rasterize(shape: dict[str, Any], size: Sequence[int], path: Path) -> np.ndarray:
    """(H, W) bool mask of a polygon, rectangle, circle or mask, its outline included, as labelme draws it."""
    kind, points = shape.get("shape_type", "polygon"), [tuple(point) for point in shape["points"]]
    canvas = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon" and len(points) > 2:
        draw.polygon(points, outline=1, fill=1)
    elif kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=1, fill=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), (on_x, on_y) = points
        radius = ((x - on_x) ** 2 + (y - on_y) ** 2) ** 0.5
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    elif kind == "mask" and len(points) == 2:
        try:
            stamp = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
        except (KeyError, TypeError, binascii.Error, UnidentifiedImageError) as error:
            raise DataError(
                f"{path}: the mask of {shape.get('label')!r} is no picture ({error!r})"
            ) from error
        canvas.paste(stamp.convert("1", dither=Image.Dither.NONE), (round(points[0][0]), round(points[0][1])))
    else:
        raise DataError(
            f"{path}: {kind!r} with {len(points)} points has no area; use polygon, rectangle, circle or mask"
        )
    return np.array(canvas)
