"""What all datasets share: limits, caches, counts, repeat factors, reduced decoding."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segtrail.data.balance import rare_class_factors, repeat_factors
from segtrail.data.datasets.base import color_map, shrink
from segtrail.data.datasets.folder import FolderDataset
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.types import DataError
from tests.data.makers import folder, ids, index_mask, picture


def test_limit_keeps_evenly_spaced_samples() -> None:
    whole, few = ShapesDataset("train"), ShapesDataset("train", limit_samples=4)
    assert few.ids == [whole.ids[i] for i in (0, 21, 42, 63)]
    assert (few[2].image == whole[42].image).all()


def test_common_options_are_checked() -> None:
    for options, message in (
        ({"on_error": "ignore"}, "on_error"),
        ({"limit_samples": 0}, "limit_samples"),
        ({"exif": "maybe"}, "exif"),
        ({"repeat": 0.5}, "repeat"),
        ({"repeat_threshold": 2.0}, "repeat_threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            ShapesDataset("train", **options)  # type: ignore[arg-type]


def test_cache_gives_equal_samples_and_notices_changes(tmp_path: Path) -> None:
    masks = folder(tmp_path, 4)
    options = {"cache": str(tmp_path / "cache"), "val_fraction": 0.0, "class_names": ["a", "b", "c"]}
    plain = FolderDataset(str(tmp_path), "train", val_fraction=0.0)
    cached = FolderDataset(str(tmp_path), "train", **options)  # type: ignore[arg-type]
    for _ in range(2):
        for i in range(4):
            assert (cached[i].image == plain[i].image).all()
            assert (cached[i].mask == masks[cached.ids[i]]).all()
    again = pickle.loads(pickle.dumps(FolderDataset(str(tmp_path), "train", **options)))  # type: ignore[arg-type]
    again.read = None  # whatever is served now comes from the file
    assert (again[3].image == plain[3].image).all()
    new = index_mask(tmp_path / "masks" / "s01.png", ids((12, 16)))
    assert (cached[1].mask == new).all()
    sample = cached[1]
    sample.image[:] = 0  # a caller's writing does not reach the file
    assert cached[1].image.any()


def test_cache_keeps_objects_and_options_apart(tmp_path: Path) -> None:
    def dataset(**options: object) -> ShapesDataset:
        return ShapesDataset("train", num_samples=3, cache=str(tmp_path), instances=True, **options)  # type: ignore[arg-type]

    first = [dataset()[i] for i in range(3)]
    second = [dataset()[i] for i in range(3)]
    for a, b in zip(first, second, strict=True):
        assert a.instances is not None
        assert b.instances is not None
        for name in ("masks", "labels", "boxes", "iscrowd"):
            assert np.array_equal(getattr(a.instances, name), getattr(b.instances, name))
            assert getattr(a.instances, name).dtype == getattr(b.instances, name).dtype
    assert (dataset(seed=1)[0].image != first[0].image).any()
    assert len(list(tmp_path.iterdir())) == 2


def test_cache_written_by_many_threads_at_once(tmp_path: Path) -> None:
    plain, cached = ShapesDataset("train", size=32), ShapesDataset("train", size=32, cache=str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            images = list(pool.map(lambda i: cached[i % 64].image.copy(), range(200)))
    assert all((image == plain[i % 64].image).all() for i, image in enumerate(images))


def test_full_cache_serves_on(tmp_path: Path) -> None:
    cached = ShapesDataset("train", cache=str(tmp_path), cache_gigabytes=1e-4)
    with pytest.warns(UserWarning, match="cache of decoded samples is full"):
        images = [cached[i].image for i in range(8)]
    assert all((image == ShapesDataset("train")[i].image).all() for i, image in enumerate(images))


def test_reduced_decoding_shrinks_the_mask_in_training_only(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / "images" / f"{name}.jpg", (75, 100))
        index_mask(tmp_path / "masks" / f"{name}.png", np.repeat(np.repeat(ids((5, 5)), 15, 0), 20, 1))
    train = FolderDataset(str(tmp_path), "train", decode_min_side=30, val_fraction=0.3)
    full = FolderDataset(str(tmp_path), "train", val_fraction=0.3)
    sample = train[0]
    assert sample.image.shape == (38, 50, 3)
    assert (sample.mask == shrink(full[0].mask, None, (38, 50))[0]).all()
    assert (sample.mask[3::8, 5::10] == full[0].mask[7::15, 10::20]).all()
    assert FolderDataset(str(tmp_path), "val", decode_min_side=30, val_fraction=0.3)[0].image.shape[:2] == (
        75,
        100,
    )


def test_class_counts_leave_void_out_and_are_kept(tmp_path: Path) -> None:
    masks = folder(tmp_path, 5)
    dataset = FolderDataset(str(tmp_path), "train", val_fraction=0.0)
    counts = dataset.class_counts()
    expected = [np.bincount(masks[name][masks[name] != 255], minlength=3) for name in dataset.ids]
    assert (counts == expected).all()
    dataset.mask = None  # type: ignore[assignment,method-assign]  # the second time nothing is read
    assert (dataset.class_counts() == expected).all()


def test_repeat_factors_by_hand() -> None:
    counts = np.zeros((100, 2), int)
    counts[:, 0] = 5
    counts[:4, 1] = 1  # in 4 % of the images: sqrt(0.16 / 0.04) = 2
    assert repeat_factors(counts, 0.16).tolist() == [2.0] * 4 + [1.0] * 96
    factors = rare_class_factors(counts, 0.5)
    assert (factors[:4] > factors[4:].max()).all()
    assert factors.min() == 1


def test_repeat_options_make_the_attribute_that_the_sampler_takes() -> None:
    assert ShapesDataset("train").repeat_factors is None
    assert ShapesDataset("val", repeat=3).repeat_factors is None
    twice = ShapesDataset("train", repeat=2, repeat_threshold=0.9).repeat_factors
    assert twice is not None
    assert twice.min() >= 2
    assert twice.shape == (64,)


def test_color_map_is_that_of_voc() -> None:
    assert color_map(21)[[1, 6, 8, 20]].tolist() == [[128, 0, 0], [0, 128, 128], [64, 0, 0], [0, 64, 128]]


def test_empty_dataset() -> None:
    with pytest.raises(DataError, match="no samples"):
        ShapesDataset("train", num_samples=0)
