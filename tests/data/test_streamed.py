"""Shards: written by the script, read sample by sample, resumed exactly."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts.shard_dataset import main
from segtrail.data.datasets.folder import FolderDataset
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.datasets.streamed import StreamedDataset, pack, unpack, unpack_objects
from segtrail.data.sampler import EpochSampler
from segtrail.data.types import DataError, Sample
from tests.data.makers import folder

pytestmark = pytest.mark.filterwarnings("ignore")  # litdata's own


def write(output: Path, *overrides: str) -> None:
    sys.argv = ["shard_dataset.py", str(output), *overrides, "--megabytes", "1"]
    assert main() == 0


@pytest.fixture(autouse=True)
def _arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize("scheme", ["", "local:"])
def test_shards_read_back_exactly_with_objects(tmp_path: Path, scheme: str) -> None:
    write(tmp_path / "shards", "dataset=shapes", "dataset.num_samples=6", "dataset.size=[40,50]")
    url = f"{scheme}{tmp_path / 'shards'}"
    assert StreamedDataset.splits(url=url) == ("train", "val", "test")
    original = ShapesDataset("train", num_samples=6, size=(40, 50), instances=True)
    streamed = pickle.loads(pickle.dumps(StreamedDataset(url, "train", instances=True)))
    assert streamed.class_names == original.class_names
    assert (streamed.palette == original.palette).all()
    assert streamed.ids == original.ids
    for index in (3, 0, 5):
        old, new = original[index], streamed[index]
        assert (new.image == old.image).all()
        assert (new.mask == old.mask).all()
        assert (new.instances.masks == old.instances.masks).all()  # type: ignore[union-attr]
        assert (new.instances.labels == old.instances.labels).all()  # type: ignore[union-attr]
    # The order is that of any data set, so what is left after a stop is the same.
    sampler = EpochSampler(6, 2, seed=1)
    everything = [streamed[index].id for _, index in sampler]
    sampler.resume(0, 2)
    assert [streamed[index].id for _, index in sampler] == everything[4:]


def test_files_stay_what_they_are_and_void_moves(tmp_path: Path) -> None:
    masks = folder(tmp_path / "own", 4)
    write(tmp_path / "shards", "dataset=folder", f"dataset.root={tmp_path / 'own'}", "dataset.val_fraction=0")
    streamed = StreamedDataset(str(tmp_path / "shards"), "train", ignore_index=-1)
    original = FolderDataset(str(tmp_path / "own"), "train", val_fraction=0.0)
    for index in range(4):
        assert (streamed[index].image == original[index].image).all()
        mask = masks[streamed.ids[index]].astype(int)
        assert (streamed[index].mask == np.where(mask == 255, -1, mask)).all()


def test_many_classes_and_no_objects_survive_packing() -> None:
    mask = np.arange(600, dtype=np.int32).reshape(20, 30)
    mask[0, 0] = -1
    objects, image, packed = unpack(pack(Sample(np.zeros((20, 30, 3), np.uint8), mask, "a"), None, -1, 600))
    assert objects is None
    assert image[:4] == b"\x89PNG"
    assert packed[24] == 16  # bits
    empty = unpack_objects({"labels": [], "iscrowd": [], "counts": []}, (4, 5))
    assert empty.masks.shape == (0, 4, 5)


def test_missing_shards_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json: .*scripts/shard_dataset\.py"):
        StreamedDataset(str(tmp_path), "train")
