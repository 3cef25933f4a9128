"""COCO panoptic: every pixel belongs to a thing or to stuff."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np

from segtrail.data.coco_index import Parsed, cached_arrays, load_json, packed, packed_item
from segtrail.data.datasets.base import SPLITS, Common, SegmentationDataset, expect_count, require_folder
from segtrail.data.datasets.coco import first_folder, usual_image_folders
from segtrail.data.files import read_labels
from segtrail.data.objects import make_instances
from segtrail.data.tables import table
from segtrail.data.types import ClassTable, DataError, Instances


class CocoPanopticDataset(SegmentationDataset):
    """Segments of the panoptic PNGs (id = R + 256 G + 65536 B, 0 is void) with their categories.

    Args:
        root: folder with ``annotations/`` and the images.
        split: ``train`` or ``val``.
        images: folder of the images below ``root``; null for ``<split>2017`` or ``images/<split>2017``.
        annotations: JSON file below ``root``, ``{split}`` in it is replaced.
        panoptic: folder of the PNGs below ``root``, likewise; null for the JSON's name without suffix.
        class_names: null, or the names of the file's categories in order of their ids.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`. Objects are the segments of thing categories.
    """

    def __init__(
        self,
        root: str,
        split: str,
        *,
        images: str | None = None,
        annotations: str = "annotations/panoptic_{split}2017.json",
        panoptic: str | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        folder = require_folder(root)
        path = folder / annotations.format(split=split)
        self._arrays, categories = cached_arrays(path, parse_panoptic)
        self._path, self._void = path, ignore_index
        classes = _table(categories)
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError(
                f"{path} has the classes {list(classes.names)}; choose among them with dataset=remap"
            )
        self._things = [index for index, row in enumerate(categories) if row.get("isthing")]
        given = [folder / images.format(split=split)] if images else usual_image_folders(folder, split)
        self._images = first_folder(given)
        self._pngs = first_folder(
            [folder / panoptic.format(split=split)]
            if panoptic
            else [path.with_suffix(""), folder / path.stem],
            key="dataset.panoptic",
        )
        count = len(self._arrays["first"]) - 1
        if split in table("coco")["counts"] and len(categories) == len(table("coco")["categories"]):
            expect_count("COCO panoptic", split, count, table("coco")["counts"][split])
        super().__init__(
            split=split,
            classes=classes,
            ids=[
                PurePosixPath(self._image_name(record)).with_suffix("").as_posix() for record in range(count)
            ],
            records=range(count),
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(
        cls, *, root: str, annotations: str = "annotations/panoptic_{split}2017.json", **config: Any
    ) -> ClassTable:
        split = cls.splits(root=root, annotations=annotations)[0]
        path = require_folder(root) / annotations.format(split=split)
        return _table(cached_arrays(path, parse_panoptic)[1])

    @classmethod
    def splits(
        cls, *, root: str, annotations: str = "annotations/panoptic_{split}2017.json", **config: Any
    ) -> tuple[str, ...]:
        folder = require_folder(root)
        found = tuple(split for split in SPLITS if (folder / annotations.format(split=split)).is_file())
        if not found:
            raise DataError(
                f"{folder / annotations.format(split='train')}: no such file; unpack the annotations"
            )
        return found if "{split}" in annotations else ("train",)

    def read_image(self, record: int) -> np.ndarray:
        return self.load(self._images / self._image_name(record))

    def read_mask(self, record: int) -> np.ndarray:
        segments = self._segments(record)
        first, last = self._arrays["first"][record : record + 2]
        ids = self._arrays["segment_ids"][first:last]
        values, inverse = np.unique(segments, return_inverse=True)
        lookup = np.full(len(values), self._void, np.int32)
        for position, value in enumerate(values.tolist()):
            if value == 0:
                continue
            match = np.flatnonzero(ids == value)
            if not len(match):
                raise DataError(
                    f"{self.describe(record)}: segment {value} is not listed in {self._path.name}"
                )
            lookup[position] = self._arrays["classes"][first + match[0]]
        mask = lookup[inverse].reshape(segments.shape)
        fits = len(self.class_names) <= 255 and 0 <= self._void < 256
        return mask.astype(np.uint8) if fits else mask

    def read_instances(self, record: int) -> Instances:
        segments = self._segments(record)
        first, last = self._arrays["first"][record : record + 2].tolist()
        places = [place for place in range(first, last) if self._arrays["classes"][place] in self._things]
        return make_instances(
            [segments == self._arrays["segment_ids"][place] for place in places],
            [int(self._arrays["classes"][place]) for place in places],
            [bool(self._arrays["iscrowd"][place]) for place in places],
            segments.shape,
        )

    def describe(self, record: int) -> str:
        return str(self._png(record))

    def sources(self, record: int) -> tuple[Path, ...]:
        return (self._images / self._image_name(record), self._png(record), self._path)

    def _image_name(self, record: int) -> str:
        return packed_item(self._arrays["images"], self._arrays["image_ends"], record).decode()

    def _png(self, record: int) -> Path:
        return self._pngs / packed_item(self._arrays["pngs"], self._arrays["png_ends"], record).decode()

    def _segments(self, record: int) -> np.ndarray:
        """(H, W) int32 segment ids."""
        colors = read_labels(self._png(record))
        if colors.ndim != 3:
            raise DataError(f"{self._png(record)}: not an RGB picture, so not a panoptic PNG")
        wide = colors.astype(np.int32)
        return wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)


def _table(categories: Sequence[dict[str, Any]]) -> ClassTable:
    colors = {row["id"]: row["color"] for row in table("coco")["categories"]}
    palette = [row.get("color") or colors.get(row["id"], (128, 128, 128)) for row in categories]
    return ClassTable(tuple(row["name"] for row in categories), np.array(palette, np.uint8))


def parse_panoptic(path: Path) -> Parsed:
    """Images, PNG names and segments of a panoptic file; categories in order of their ids."""
    content = load_json(path)
    categories = sorted(content["categories"], key=lambda row: row["id"])
    class_of = {row["id"]: index for index, row in enumerate(categories)}
    names = {image["id"]: image["file_name"] for image in content["images"]}
    images, pngs, counts = [], [], [0]
    segments: list[tuple[int, int, bool]] = []
    for annotation in content["annotations"]:
        if annotation["image_id"] not in names:
            raise DataError(
                f"{path}: an annotation names image {annotation['image_id']}, which is not listed"
            )
        images.append(names[annotation["image_id"]].encode())
        pngs.append(annotation["file_name"].encode())
        for segment in annotation["segments_info"]:
            if segment["category_id"] not in class_of:
                raise DataError(
                    f"{path}: segment {segment['id']} has category {segment['category_id']}, not listed"
                )
            segments.append(
                (segment["id"], class_of[segment["category_id"]], bool(segment.get("iscrowd", 0)))
            )
        counts.append(len(segments))
    arrays: dict[str, np.ndarray] = {
        "first": np.array(counts, np.int64),
        "segment_ids": np.array([segment[0] for segment in segments], np.int32),
        "classes": np.array([segment[1] for segment in segments], np.int32),
        "iscrowd": np.array([segment[2] for segment in segments], bool),
        **packed("images", "image_ends", images),
        **packed("pngs", "png_ends", pngs),
    }
    return arrays, categories
