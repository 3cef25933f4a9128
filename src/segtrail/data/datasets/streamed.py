"""Data sets in an object store, read sample by sample without a copy on the disk."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Sequence
from typing import Any, Unpack

import cv2
import fsspec
import numpy as np
from pycocotools import mask as coco_mask

from segtrail.data.datasets.base import Common, SegmentationDataset
from segtrail.data.files import decode_image, decode_labels
from segtrail.data.masks import IndexMasks
from segtrail.data.objects import make_instances
from segtrail.data.types import ClassTable, DataError, Instances, Sample

FACTS = "dataset.json"


class StreamedDataset(SegmentationDataset):
    """Shards that ``scripts/shard_dataset.py`` wrote, on a disk or at an S3, GS or Azure URL.

    Every sample is one entry of a litdata shard, fetched by its range of bytes: nothing needs to fit
    on a disk, and order, augmentation and resuming are those of any other data set. With
    ``cache`` decoded samples stay on the disk, as many as fit.

    Args:
        url: folder of the shards.
        split: one of those that were written.
        class_names: null, or the names in the shards.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`.
    """

    def __init__(
        self,
        url: str,
        split: str,
        *,
        class_names: Sequence[str] | None = None,
        ignore_index: int = 255,
        **common: Unpack[Common],
    ) -> None:
        facts = read_facts(url)
        if split not in facts["splits"]:
            raise DataError(f"{url}: no split {split!r}; it has {', '.join(facts['splits'])}")
        classes = self.class_table(url=url)
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError(f"{url} has the classes {list(classes.names)}; choose with dataset=remap")
        self._url = f"{url.rstrip('/')}/{split}"
        self._shards: Any = None
        self._process = 0
        self._lock = threading.Lock()
        self._void = IndexMasks({}, void=[void_value(len(classes.names))], ignore_index=ignore_index)
        ids = facts["splits"][split]
        super().__init__(
            split=split,
            classes=classes,
            ids=ids,
            records=range(len(ids)),
            ignore_index=ignore_index,
            **common,
        )

    @classmethod
    def class_table(cls, *, url: str, **config: Any) -> ClassTable:
        facts = read_facts(url)
        return ClassTable(tuple(facts["class_names"]), np.array(facts["palette"], np.uint8))

    @classmethod
    def splits(cls, *, url: str, **config: Any) -> tuple[str, ...]:
        return tuple(read_facts(url)["splits"])

    def read(self, index: int) -> Sample:
        # One request for the whole sample; the base would make one for each part.
        self._entry = (self.records[index], self._fetch(self.records[index]))
        return super().read(index)

    def read_image(self, record: int) -> np.ndarray:
        image = self._parts(record)[1]
        return decode_image(image, self.describe(record), exif=self.exif, min_side=self.decode_min_side)

    def read_mask(self, record: int) -> np.ndarray:
        return self._void.map(
            decode_labels(self._parts(record)[2], self.describe(record)), self.describe(record)
        )

    def read_instances(self, record: int) -> Instances | None:
        objects, _, mask = self._parts(record)
        return None if objects is None else unpack_objects(objects, decode_labels(mask, "").shape)

    def describe(self, record: int) -> str:
        return f"{self._url}: sample {record}"

    def _parts(self, record: int) -> tuple[dict[str, Any] | None, bytes, bytes]:
        known, entry = getattr(self, "_entry", (None, None))
        return unpack(entry if known == record and entry is not None else self._fetch(record))

    def _fetch(self, record: int) -> np.ndarray:
        with self._lock:
            if self._process != os.getpid():  # connections do not survive a fork
                self._shards, self._process = _open(self._url), os.getpid()
            return np.asarray(self._shards[record])

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value for key, value in self.__dict__.items() if key not in ("_shards", "_lock", "_entry")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_process": 0, "_lock": threading.Lock()})


def _open(url: str) -> Any:
    try:
        from litdata import StreamingDataset  # slow to import, and an extra
    except ImportError as error:
        raise DataError("sharded data is read with litdata: pip install 'segtrail[stream]'") from error
    return StreamingDataset(url, shuffle=False)


def read_facts(url: str) -> dict[str, Any]:
    """Classes and ids that lie beside the shards.

    Raises:
        DataError: there are none.
    """
    try:
        with fsspec.open(f"{url.rstrip('/')}/{FACTS}", "rt") as file:
            return json.load(file)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{url}/{FACTS}: {error}; write shards with scripts/shard_dataset.py") from error


def void_value(classes: int) -> int:
    """What void is in the shards' masks."""
    return 255 if classes <= 255 else 65535


def pack(sample: Sample, image: bytes | None, ignore_index: int, classes: int) -> np.ndarray:
    """One sample as bytes: three lengths, objects as JSON, picture, mask as PNG.

    Args:
        sample: what to write.
        image: its file, if that is a JPEG or PNG that can stay as it is.
        ignore_index: void in the sample's mask.
        classes: number of classes.

    Returns:
        (L,) uint8.
    """
    void = void_value(classes)
    values = np.where(sample.mask == ignore_index, void, sample.mask)
    mask: np.ndarray = values.astype(np.uint8 if void == 255 else np.uint16)
    objects = sample.instances
    content = (
        None
        if objects is None
        else {
            "labels": objects.labels.tolist(),
            "iscrowd": objects.iscrowd.tolist(),
            "counts": [
                coco_mask.encode(np.asfortranarray(one.astype(np.uint8)))["counts"].decode()
                for one in objects.masks
            ],
        }
    )
    if image is None:
        image = cv2.imencode(".png", cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR))[1].tobytes()
    parts = [
        json.dumps(content).encode(),
        image,
        cv2.imencode(".png", np.ascontiguousarray(mask))[1].tobytes(),
    ]
    return np.frombuffer(np.array([len(part) for part in parts], "<i8").tobytes() + b"".join(parts), np.uint8)


def unpack(entry: np.ndarray) -> tuple[dict[str, Any] | None, bytes, bytes]:
    """Objects, picture and mask of :func:`pack`."""
    file = io.BytesIO(entry.tobytes())
    lengths = np.frombuffer(file.read(24), "<i8").tolist()
    objects, image, mask = (file.read(length) for length in lengths)
    return json.loads(objects), image, mask


def unpack_objects(content: dict[str, Any], size: Sequence[int]) -> Instances:
    """Objects of an entry in an image of ``size``."""
    codes = [{"size": list(size), "counts": counts.encode()} for counts in content["counts"]]
    masks = coco_mask.decode(codes).transpose(2, 0, 1) if codes else []
    return make_instances(masks, content["labels"], content["iscrowd"], size)
