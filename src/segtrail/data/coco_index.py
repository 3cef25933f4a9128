"""COCO annotation files parsed once into memory-mapped arrays that all workers share."""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segtrail.data.cache import cache_folder, digest, file_stamp
from segtrail.data.types import DataError

Parsed = tuple[dict[str, np.ndarray], list[dict[str, Any]]]

FORMAT = 1  # part of the key: raise it whenever the arrays change


@dataclass(frozen=True)
class CocoIndex:
    """Images and annotations of one file; the annotations of image i are ``first[i]:first[i + 1]``.

    Every segmentation, polygons included, is a compressed run-length code as pycocotools makes it.

    Attributes:
        image_ids: (N,) int64, in order of the file.
        sizes: (N, 2) int32 height and width.
        first: (N + 1,) int64.
        categories: (A,) int64 category ids of the file.
        iscrowd: (A,) bool.
        areas: (A,) float64 as the file says.
        annotation_ids: (A,) int64.
    """

    path: Path
    image_ids: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    categories: np.ndarray
    iscrowd: np.ndarray
    areas: np.ndarray
    annotation_ids: np.ndarray
    category_table: tuple[dict[str, Any], ...]
    _names: np.ndarray
    _name_ends: np.ndarray
    _codes: np.ndarray
    _code_ends: np.ndarray

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, image: int) -> str:
        """``file_name`` of an image."""
        return packed_item(self._names, self._name_ends, image).decode()

    def annotations(self, image: int) -> range:
        """Places of the annotations of an image."""
        return range(int(self.first[image]), int(self.first[image + 1]))

    def code(self, image: int, annotation: int) -> dict[str, Any]:
        """Run-length code of an annotation, as pycocotools takes it."""
        return {
            "size": self.sizes[image].tolist(),
            "counts": packed_item(self._codes, self._code_ends, annotation),
        }

    def masks(self, image: int, annotations: Sequence[int]) -> np.ndarray:
        """(N, H, W) bool masks of some annotations of an image."""
        if not len(annotations):
            return np.zeros((0, *self.sizes[image].tolist()), bool)
        codes = [self.code(image, annotation) for annotation in annotations]
        return np.ascontiguousarray(coco_mask.decode(codes).transpose(2, 0, 1)).view(bool)


def open_index(path: Path, folder: Path | None = None) -> CocoIndex:
    """Index of an annotation file, parsed now if its cache is missing or out of date.

    Args:
        path: instances or panoptic JSON.
        folder: of the cache; ``$SEGTRAIL_CACHE/coco`` if None.

    Raises:
        DataError: not a file of this format; an annotation without image, category or valid outline.
    """
    arrays, categories = cached_arrays(path, parse, folder)
    return CocoIndex(path=path, category_table=categories, **arrays)


def cached_arrays(
    path: Path, parse: Callable[[Path], Parsed], folder: Path | None = None
) -> tuple[dict[str, np.ndarray], tuple[dict[str, Any], ...]]:
    """Memory-mapped arrays and the category table that ``parse`` makes of an annotation file."""
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file; unpack the annotations or set dataset.annotations")
    folder = folder or cache_folder() / "coco"
    target = folder / digest(FORMAT, parse.__qualname__, str(path.resolve()), file_stamp([path]))
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{target.name}.lock"):  # one process parses, the others wait and share
            if not target.is_dir():
                _build(path, parse, target)
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in target.glob("*.npy")}
    return arrays, tuple(json.loads((target / "categories.json").read_text()))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(path: Path, parse: Callable[[Path], Parsed], target: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        arrays, categories = parse(path)
        for name, array in arrays.items():
            np.save(building / f"{name}.npy", array)
        (building / "categories.json").write_text(json.dumps(categories))
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def parse(path: Path) -> Parsed:
    """Arrays of :class:`CocoIndex` and the category table of an instances file."""
    content = load_json(path)
    images: list[dict[str, Any]] = content["images"]
    place = {image["id"]: index for index, image in enumerate(images)}
    if len(place) != len(images):
        raise DataError(f"{path}: two images share an id")
    known = {category["id"] for category in content["categories"]}
    annotations: list[dict[str, Any]] = content.pop("annotations")
    for annotation in annotations:
        if annotation.get("image_id") not in place:
            raise DataError(
                f"{path}: annotation {annotation.get('id')} names image {annotation.get('image_id')}, "
                f"which the file does not list"
            )
        if annotation.get("category_id") not in known:
            raise DataError(
                f"{path}: annotation {annotation.get('id')} has category {annotation.get('category_id')}, "
                f"which the file does not list"
            )
    annotations.sort(key=lambda annotation: place[annotation["image_id"]])
    codes: list[bytes] = []
    kept: list[dict[str, Any]] = []
    empty = 0
    for annotation in annotations:
        image = images[place[annotation["image_id"]]]
        code = encode(annotation, int(image["height"]), int(image["width"]), path)
        # The outline is by far the largest part of a parsed file: let go of it at once.
        annotation["segmentation"] = None
        if code is None:
            empty += 1
            continue
        codes.append(code)
        kept.append(annotation)
    if empty:
        warnings.warn(f"{path}: {empty} annotations without an outline were left out", stacklevel=2)
    counts = (
        np.bincount([place[a["image_id"]] for a in kept], minlength=len(images))
        if kept
        else np.zeros(len(images))
    )
    names = [str(image["file_name"]).encode() for image in images]
    arrays: dict[str, np.ndarray] = {
        "image_ids": np.array([image["id"] for image in images], np.int64),
        "sizes": np.array([(image["height"], image["width"]) for image in images], np.int32).reshape(-1, 2),
        "first": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "categories": np.array([a["category_id"] for a in kept], np.int64),
        "iscrowd": np.array([bool(a.get("iscrowd", 0)) for a in kept], bool),
        "areas": np.array([a.get("area", 0) for a in kept], np.float64),
        "annotation_ids": np.array([a.get("id", 0) for a in kept], np.int64),
        **packed("_names", "_name_ends", names),
        **packed("_codes", "_code_ends", codes),
    }
    return arrays, content["categories"]


def load_json(path: Path) -> dict[str, Any]:
    """A COCO file with its three lists.

    Raises:
        DataError: no JSON, or a list is missing.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error}); copy it again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: no list {key!r}; is this a COCO annotation file with labels?")
    return content


def encode(annotation: Mapping[str, Any], height: int, width: int, path: Path) -> bytes | None:
    """Compressed run-length code of polygons or of either run-length form; None if there is nothing."""
    shape = annotation.get("segmentation")
    name = f"{path}: annotation {annotation.get('id')}"
    if not shape:
        return None
    if isinstance(shape, list):
        polygons = [polygon for polygon in shape if polygon]
        if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise DataError(f"{name} has a polygon of fewer than 3 points or an odd number of coordinates")
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"] if polygons else None
    if list(shape.get("size", ())) != [height, width]:
        raise DataError(
            f"{name} has a run-length code of size {shape.get('size')} in an image of {[height, width]}"
        )
    counts = shape.get("counts")
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise DataError(f"{name} has runs of {sum(counts)} pixels in an image of {height * width}")
        return coco_mask.frPyObjects(dict(shape), height, width)["counts"]
    if isinstance(counts, str):
        return counts.encode()
    raise DataError(f"{name} has a segmentation that is neither polygons nor a run-length code")


def packed(blob: str, ends: str, parts: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Byte strings joined to one array, and the array of where each ends, under these names."""
    return {
        blob: np.frombuffer(b"".join(parts), np.uint8),
        ends: np.cumsum([len(part) for part in parts]).astype(np.int64),
    }


def packed_item(blob: np.ndarray, ends: np.ndarray, index: int) -> bytes:
    """One of the byte strings that :func:`packed` joined."""
    start = int(ends[index - 1]) if index else 0
    return blob[start : int(ends[index])].tobytes()
