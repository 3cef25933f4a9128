"""Found objects as files: pictures, label maps, cut-outs, and annotations that people correct."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segtrail.data.detections import Detections, decode, to_coco
from segtrail.data.object_files import label_map
from segtrail.data.polygons import to_coco_annotations, to_labelme
from segtrail.models.mask_rcnn import BACKGROUND
from segtrail.tracking.label_map import encode_label_map
from segtrail.visual.instances import draw_instances

TABLE = ("image", "object", "class", "score", "x", "y", "width", "height", "area")


class InstanceWriter:
    """Writes what was found under a folder.

    ``pictures/NAME.jpg`` (``.mp4`` for videos), ``label_maps/NAME.png`` (palette PNG of class ids, 255 where
    nothing is), ``cutouts/NAME/000-CLASS.png`` (transparent around the object) and ``labelme/NAME.json``; for
    all images together ``results.json`` (COCO's results), ``annotations.json`` (a COCO data set with
    polygons, to be corrected and trained on) and ``detections.csv``. Of videos only pictures and the common
    files. Category ids count from 1, so that those of COCO's published models are COCO's own.

    Args:
        folder: made if it does not exist.
        class_names: in id order.
        palette: (K, 3) uint8.
        pictures, label_maps, cutouts, labelme: what to write of each image.
        color_by: ``instance`` or ``class``.
        tolerance: pixels by which polygons are simplified.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        palette: np.ndarray,
        *,
        pictures: bool = True,
        label_maps: bool = True,
        cutouts: bool = False,
        labelme: bool = False,
        color_by: str = "instance",
        tolerance: float = 0.5,
    ) -> None:
        if color_by not in ("instance", "class"):
            raise ValueError(f"color_by={color_by!r}: give 'instance' or 'class'")
        self.folder = folder
        self.class_names = tuple(class_names)
        first = 0 if self.class_names[:1] and self.class_names[0] in BACKGROUND else 1
        self.category_ids = range(first, first + len(self.class_names))
        self.palette = np.asarray(palette, np.uint8)
        self.pictures, self.label_maps, self.cutouts, self.labelme = pictures, label_maps, cutouts, labelme
        self.color_by = color_by
        self.tolerance = tolerance
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._rows: list[tuple[Any, ...]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def draw(self, image: np.ndarray, detections: Detections) -> np.ndarray:
        """Returns the picture of one image, (H', W', 3) uint8."""
        return draw_instances(
            image,
            detections.boxes,
            (decode(mask) for mask in detections.masks),
            detections.labels.tolist(),
            detections.scores.tolist(),
            self.class_names,
            self.palette if self.color_by == "class" else None,
        )

    def write(self, name: str, path: Path, image: np.ndarray, detections: Detections) -> None:
        """Writes the files of one image.

        Args:
            name: relative path without suffix.
            path: of the photograph, which annotation files refer to.
            image: (H, W, 3) uint8 RGB.
            detections: what was found in it.
        """
        self.collect(name, os.path.relpath(path, self.folder), detections)
        if self.pictures:
            picture = Image.fromarray(self.draw(image, detections))
            picture.save(self._path("pictures", f"{name}.jpg"), quality=92)
        if self.label_maps:
            content = encode_label_map(label_map(detections, 255), self.palette)
            self._path("label_maps", f"{name}.png").write_bytes(content)
        if self.cutouts:
            for number in range(len(detections)):
                self._cut_out(name, number, image, detections)
        if self.labelme:
            target = self._path("labelme", f"{name}.json")
            photograph = os.path.relpath(path, target.parent)
            objects = to_labelme(detections, self.class_names, photograph, self.tolerance)
            target.write_text(json.dumps(objects, indent=1), encoding="utf-8")

    def collect(self, name: str, file_name: str, detections: Detections) -> None:
        """Adds an image to the common files."""
        number = len(self._images) + 1
        height, width = detections.size
        self._images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        results = to_coco(detections, number, self.category_ids)
        self._results += results
        first = len(self._annotations) + 1
        self._annotations += to_coco_annotations(detections, number, first, self.category_ids, self.tolerance)
        for index, (entry, label) in enumerate(zip(results, detections.labels.tolist(), strict=True)):
            area = int(decode(entry["segmentation"]).sum())
            row = (name, index, self.class_names[label], f"{entry['score']:.4f}", *entry["bbox"], area)
            self._rows.append(row)

    def finish(self) -> None:
        """Writes the common files."""
        categories = [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in zip(self.category_ids, self.class_names, strict=True)
            if name not in (*BACKGROUND, "N/A")
        ]
        data_set = {"images": self._images, "annotations": self._annotations, "categories": categories}
        self._path("annotations.json").write_text(json.dumps(data_set), encoding="utf-8")
        self._path("results.json").write_text(json.dumps(self._results), encoding="utf-8")
        with self._path("detections.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(TABLE)
            writer.writerows(self._rows)

    def _cut_out(self, name: str, number: int, image: np.ndarray, detections: Detections) -> None:
        mask = detections.mask(number)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return
        region = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        layers = np.dstack([image[region], mask[region].astype(np.uint8) * 255])
        label = self.class_names[int(detections.labels[number])].replace("/", "_")
        Image.fromarray(layers).save(self._path("cutouts", name, f"{number:03d}-{label}.png"))

    def _path(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class VideoWriter:
    """Writes pictures as a video; the first one decides on the size.

    Args:
        path: of the MP4 file.
        rate: pictures per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._writer: cv2.VideoWriter | None = None

    def write(self, picture: np.ndarray) -> None:
        """Adds one (H, W, 3) uint8 RGB picture."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = (picture.shape[1], picture.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, size)
            if not self._writer.isOpened():
                raise OSError(f"{self.path}: OpenCV cannot write this video")
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Ends the file."""
        if self._writer is not None:
            self._writer.release()
