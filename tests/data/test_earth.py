"""The embedded satellite chips."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from segtrail.data.datasets.earth import EarthDataset
from segtrail.data.types import DataError


@pytest.fixture(scope="module")
def root(cache_root: Path) -> str:
    return str(cache_root)


def test_splits_are_disjoint_by_blocks_of_chips_and_hold_every_class(root: str) -> None:
    blocks: dict[tuple[int, int], str] = {}
    for split in EarthDataset.splits():
        dataset = EarthDataset(split, root)
        assert len(dataset) > 50
        counts = dataset.class_counts().sum(axis=0)
        assert (counts > 0.005 * counts.sum()).all()
        for name in dataset.ids:
            block = (int(name[1:3]) // 2, int(name[4:6]) // 2)
            assert blocks.setdefault(block, split) == split


def test_labels_match_known_places(root: str) -> None:
    chips = {
        name: (split, i)
        for split in EarthDataset.splits()
        for i, name in enumerate(EarthDataset(split, root).ids)
    }

    def label(latitude: float, longitude: float) -> int:
        row, column = int((90 - latitude) * 15) - 90, int((longitude + 180) * 15)
        split, index = chips[f"r{row // 128:02d}c{column // 128:02d}"]
        return int(EarthDataset(split, root)[index].mask[row % 128, column % 128])

    assert label(41.0, 6.0) == 0  # the western Mediterranean
    assert label(55.0, 4.0) == 1  # the North Sea
    assert label(47.0, 2.5) == 2  # France
    assert label(67.0, -48.0) == 3  # Greenland's ice
    assert label(42.0, 51.0) in (0, 1)  # the Caspian, a lake by the source
    assert label(-1.0, 33.0) == 255  # Lake Victoria


def test_lakes_as_a_class(root: str) -> None:
    void, lakes = EarthDataset("train", root), EarthDataset("train", root, lakes="class")
    assert lakes.class_names == (*void.class_names, "lake")
    assert lakes.class_counts()[:, 4].sum() > 0
    assert (void[0].image == lakes[0].image).all()


def test_objects_are_connected_pieces(root: str) -> None:
    sample = EarthDataset("val", root, instances=True)[3]
    assert sample.instances is not None
    for mask, label in zip(sample.instances.masks, sample.instances.labels, strict=True):
        assert set(np.unique(sample.mask[mask])) == {label}
        assert mask.sum() >= 16


def test_unknown_split_and_wrong_names(root: str) -> None:
    with pytest.raises(DataError, match="no split 'dev'"):
        EarthDataset("dev", root)
    with pytest.raises(DataError, match="deep_ocean"):
        EarthDataset("val", root, class_names=["a"])


def _build(root: str) -> int:
    return len(EarthDataset("val", root))


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sizes = pool.map(_build, [str(tmp_path)] * 2)
    assert sizes[0] == sizes[1] == len(EarthDataset("val", str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["earth-1-128"]
