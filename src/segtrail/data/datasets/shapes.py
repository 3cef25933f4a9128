"""Procedural pictures of colored, textured shapes: any number, any size, exact masks, no files."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, Unpack

import cv2
import numpy as np

from segtrail.data.datasets.base import SPLITS, Common, SegmentationDataset
from segtrail.data.objects import boxes_of
from segtrail.data.types import ClassTable, DataError, Instances, Sample

FORMS = ("disk", "square", "triangle", "ring", "star", "cross")
TEXTURES = ("plain", "stripes", "checks", "dots")


class ShapesDataset(SegmentationDataset):
    """Shapes over a grey, noisy ground; a class is a color, a form and a texture at once.

    A sample is a pure function of (seed, split, index) and of the options. Later objects hide
    earlier ones; instance masks and boxes cover what stays visible.

    Args:
        split: ``train``, ``val`` or ``test``.
        num_samples: samples of each split, one number for all or one by split name.
        size: height and width, or one number for both.
        num_classes: classes, the ground among them.
        class_names: null, or as many names of your own (the first is the ground).
        max_objects: every picture has 1 to that many objects.
        noise: standard deviation of the pixel noise, of 255.
        seed: another seed, other pictures.
        ignore_index: never occurs in the masks.
        common: see :class:`SegmentationDataset`; the objects are exact.
    """

    def __init__(
        self,
        split: str,
        *,
        num_samples: int | dict[str, int] = 64,
        size: int | Sequence[int] = 96,
        num_classes: int = 4,
        class_names: Sequence[str] | None = None,
        max_objects: int = 4,
        noise: float = 12.0,
        seed: int = 0,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"shapes has no split {split!r}; it has {', '.join(SPLITS)}")
        if num_classes < 2 or max_objects < 1:
            raise ValueError(
                f"num_classes {num_classes} must be at least 2, max_objects {max_objects} at least 1"
            )
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(self.size) < 16:
            raise ValueError(f"size {self.size} is too small for a shape; take at least 16")
        self._key = (seed, SPLITS.index(split))
        self._max_objects, self._noise = max_objects, noise
        count = num_samples if isinstance(num_samples, int) else num_samples[split]
        super().__init__(
            split=split,
            classes=self.class_table(num_classes=num_classes, class_names=class_names),
            ids=[f"{split}-{index:05d}" for index in range(count)],
            records=range(count),
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(
        cls, *, num_classes: int = 4, class_names: Sequence[str] | None = None, **config: Any
    ) -> ClassTable:
        names = ["ground"]
        for index in range(num_classes - 1):
            form, texture = FORMS[index % len(FORMS)], TEXTURES[index % len(TEXTURES)]
            suffix = f"_{index // len(FORMS)}" if index >= len(FORMS) else ""
            names.append(f"{texture}_{form}{suffix}")
        if class_names is not None:
            if len(class_names) != num_classes:
                raise DataError(f"shapes has num_classes {num_classes} but {len(class_names)} class_names")
            names = list(class_names)
        colors = [(128, 128, 128)]
        for index in range(num_classes - 1):
            # The golden angle keeps any number of hues apart.
            red, green, blue = colorsys.hsv_to_rgb((index * 0.381966) % 1, 0.85, 0.9)
            colors.append((round(red * 255), round(green * 255), round(blue * 255)))
        return ClassTable(tuple(names), np.array(colors, np.uint8))

    @classmethod
    def splits(cls, **config: Any) -> tuple[str, ...]:
        return SPLITS

    def read(self, index: int) -> Sample:
        image, mask, objects = self._draw(self.records[index])
        return Sample(image, mask, self.ids[index], objects if self.instances else None)

    def read_image(self, record: int) -> np.ndarray:
        return self._draw(record)[0]

    def read_mask(self, record: int) -> np.ndarray:
        return self._draw(record)[1]

    def read_instances(self, record: int) -> Instances:
        return self._draw(record)[2]

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray, Instances]:
        rng = np.random.default_rng((*self._key, index))
        height, width = self.size
        image = np.full((height, width, 3), rng.uniform(60, 190), np.float32)
        owner = np.zeros(self.size, np.int32)  # which object is on top, 0 for the ground
        labels = [0]
        for number in range(1, int(rng.integers(1, self._max_objects + 1)) + 1):
            label = int(rng.integers(1, len(self.class_names)))
            stamp = _form(FORMS[(label - 1) % len(FORMS)], self.size, rng)
            color = self.palette[label].astype(np.float32) * rng.uniform(0.85, 1.1)
            shade = _texture(TEXTURES[(label - 1) % len(TEXTURES)], self.size, rng)
            image[stamp] = (color * shade[..., None])[stamp]
            owner[stamp] = number
            labels.append(label)
        image += rng.normal(0, self._noise, self.size).astype(np.float32)[..., None]
        mask = np.array(labels, np.uint8 if len(self.class_names) <= 255 else np.int32)[owner]
        visible = [number for number in range(1, len(labels)) if (owner == number).any()]
        masks = np.stack([owner == number for number in visible])
        return (
            np.clip(image, 0, 255).astype(np.uint8),
            mask,
            Instances(
                masks,
                np.array([labels[number] for number in visible], np.int64),
                boxes_of(masks),
                np.zeros(len(visible), bool),
            ),
        )


def _form(form: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool stamp of one form at a random place, size and angle."""
    height, width = size
    radius = rng.uniform(0.12, 0.28) * min(size)
    center = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height])
    angle = rng.uniform(0, 2 * np.pi)
    stamp = np.zeros(size, np.uint8)
    if form in ("disk", "ring"):
        at = (round(center[0]), round(center[1]))
        cv2.circle(stamp, at, round(radius), 1, -1)
        if form == "ring":
            cv2.circle(stamp, at, round(radius * 0.5), 0, -1)
        return stamp.astype(bool)
    if form == "cross":
        for turn in (0.0, np.pi / 2):
            arm = np.array([[-1, -0.35], [1, -0.35], [1, 0.35], [-1, 0.35]]) * radius
            cv2.fillPoly(stamp, [_turned(arm, center, angle + turn)], 1)
        return stamp.astype(bool)
    corners = {"square": 4, "triangle": 3, "star": 10}[form]
    around = np.arange(corners) * 2 * np.pi / corners
    reach = np.where(np.arange(corners) % 2, 0.45, 1.0) if form == "star" else np.ones(corners)
    points = np.stack([np.cos(around), np.sin(around)], axis=1) * reach[:, None] * radius
    cv2.fillPoly(stamp, [_turned(points, center, angle)], 1)
    return stamp.astype(bool)


def _turned(points: np.ndarray, center: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return (points @ np.array([[cos, sin], [-sin, cos]]) + center).round().astype(np.int32)


def _texture(texture: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 factors on the color."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    phase, period = rng.uniform(0, 8), 8
    if texture == "stripes":
        return np.where((rows + phase) % period < period / 2, 1.0, 0.55)
    if texture == "checks":
        return np.where(((rows + phase) % period < period / 2) ^ (columns % period < period / 2), 1.0, 0.55)
    if texture == "dots":
        near = ((rows + phase) % period - period / 2) ** 2 + (columns % period - period / 2) ** 2
        return np.where(near < 5, 0.45, 1.0)
    return np.ones(size, np.float32)
