"""Which mask belongs to which image of a folder, and which of them to which split."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segtrail.data.datasets.base import SPLITS
from segtrail.data.files import IMAGE_SUFFIXES
from segtrail.data.types import DataError

MASK_ENDINGS = ("_mask", "_gt", "_label", "_labels", "_L", "_P", "_labelTrainIds", "_labelIds", "_seg")
"""What a mask's stem may have behind the image's stem."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

_LIST_FOLDERS = ("", "splits", "ImageSets/Segmentation", "ImageSets")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its mask."""

    id: str
    image: Path
    mask: Path


def find_pairs(images: Path, masks: Path, mask_suffixes: frozenset[str]) -> tuple[list[Pair], list[str]]:
    """Match by the path below the two folders without suffix and mask ending.

    Returns:
        the pairs in order of their id, and one line for each file that found no partner.

    Raises:
        DataError: two files claim the same id.
    """
    image_files, mask_files = _files(images, IMAGE_SUFFIXES), _files(masks, mask_suffixes)
    if images == masks:  # side by side: the mask ending tells them apart, or the suffix
        shared = bool(mask_suffixes & IMAGE_SUFFIXES)
        mask_files = [path for path in mask_files if not shared or _without_ending(path.stem) != path.stem]
        taken = set(mask_files)
        image_files = [path for path in image_files if path not in taken]
    by_image = _by_id(image_files, images)
    # An image may itself be called x_L: only strip an ending when the whole stem has no partner.
    by_mask = _by_id(mask_files, masks, known=by_image.keys())
    faults = [
        f"{path}: image without a mask; expected {masks / id_}.* or with one of {', '.join(MASK_ENDINGS)}"
        for id_, path in sorted(by_image.items())
        if id_ not in by_mask
    ]
    faults += [
        f"{path}: mask without an image; expected {images / id_}.*"
        for id_, path in sorted(by_mask.items())
        if id_ not in by_image
    ]
    return [
        Pair(id_, by_image[id_], by_mask[id_]) for id_ in sorted(by_image.keys() & by_mask.keys())
    ], faults


def _files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    wanted = frozenset(suffixes)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in wanted and not path.name.startswith(".") and path.is_file()
    )


def _by_id(files: Sequence[Path], folder: Path, known: Iterable[str] | None = None) -> dict[str, Path]:
    named = set(known) if known is not None else None
    result: dict[str, Path] = {}
    for path in files:
        id_ = path.relative_to(folder).with_suffix("").as_posix()
        if named is not None and id_ not in named:
            id_ = (PurePosixPath(id_).parent / _without_ending(path.stem)).as_posix()
        if id_ in result:
            raise DataError(f"{path}: same name as {result[id_].name} in this folder; keep one of them")
        result[id_] = path
    return result


def _without_ending(stem: str) -> str:
    for ending in sorted(MASK_ENDINGS, key=len, reverse=True):
        if stem.endswith(ending) and len(stem) > len(ending):
            return stem.removesuffix(ending)
    return stem


def split_folder(parent: Path, split: str) -> Path | None:
    """``parent/train`` or one of its synonyms."""
    return next((parent / name for name in SPLIT_NAMES[split] if (parent / name).is_dir()), None)


def list_files(root: Path) -> dict[str, Path]:
    """``train.txt``, ``val.txt``, ``test.txt`` (or synonyms), by split."""
    for folder in _LIST_FOLDERS:
        found = {
            split: root / folder / f"{name}.txt"
            for split in SPLITS
            for name in SPLIT_NAMES[split]
            if (root / folder / f"{name}.txt").is_file()
        }
        if "train" in found:
            return found
    return {}


def select_listed(pairs: Sequence[Pair], listing: Path, faults: Sequence[str] = ()) -> list[Pair]:
    """Pairs that a list file names, in its order.

    A line is a name with or without suffix and folders; of several columns the first counts. Only
    as much of the path as is needed is compared, so absolute paths of another machine work.

    Args:
        pairs: to choose from.
        listing: the list file.
        faults: what is known of files without a partner, to explain a line that names one of them.

    Raises:
        DataError: a line names no pair.
    """
    by_id = {pair.id: pair for pair in pairs}
    by_name: dict[str, Pair | None] = {}
    for pair in pairs:
        name = PurePosixPath(pair.id).name
        by_name[name] = None if name in by_name else pair
    chosen = []
    for number, line in enumerate(listing.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        entry = line.strip()
        listed = _lookup(entry, by_id, by_name) or _lookup(entry.split()[0], by_id, by_name)
        if listed is None:
            stem = PurePosixPath(entry.split()[0]).stem
            known = next((fault for fault in faults if f"/{stem}." in fault), None)
            reason = known or f"{entry!r} is none of the image-mask pairs; remove the line or add the files"
            raise DataError(f"{listing}, line {number}: {reason}")
        chosen.append(listed)
    return chosen


def _lookup(entry: str, by_id: Mapping[str, Pair], by_name: Mapping[str, Pair | None]) -> Pair | None:
    path = PurePosixPath(entry.replace("\\", "/"))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        path = path.with_suffix("")
    parts = path.parts
    for start in range(len(parts)):
        if pair := by_id.get("/".join(parts[start:])):
            return pair
    return by_name.get(path.name)


def read_csv(path: Path, root: Path) -> dict[str, list[Pair]]:
    """Pairs by split of a table with the columns ``image``, ``mask`` and ``split``; paths from ``root``.

    Raises:
        DataError: a column is missing, a split is unknown, or a file does not exist.
    """
    splits: dict[str, list[Pair]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"image", "mask", "split"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{path}: no column {sorted(missing)[0]!r}; the header is image,mask,split")
        for number, row in enumerate(reader, 2):
            split = next(
                (key for key, names in SPLIT_NAMES.items() if row["split"].strip().lower() in names), None
            )
            if split is None:
                raise DataError(f"{path}, line {number}: split {row['split']!r}; it is train, val or test")
            image, mask = root / row["image"].strip(), root / row["mask"].strip()
            for file_path in (image, mask):
                if not file_path.is_file():
                    raise DataError(f"{path}, line {number}: {file_path} does not exist")
            id_ = (
                PurePosixPath(row["image"].strip().replace("\\", "/")).with_suffix("").as_posix().lstrip("./")
            )
            splits.setdefault(split, []).append(Pair(id_, image, mask))
    return splits


def fraction_splits(
    pairs: Sequence[Pair], val: float, test: float, seed: int, group: str | None
) -> dict[str, list[Pair]]:
    """Seeded shares of the groups; a sample keeps its split when others are added or removed.

    A group's place is a hash of (seed, group name), so shares are exact only for many groups; where a
    wanted split would stay empty, it gets the group that is nearest to it.

    Args:
        pairs: all samples.
        val, test: shares between 0 and 1.
        seed: another seed, other splits.
        group: regular expression; what it matches in an id (its first group, if it has one) names the
            samples that stay together, such as the frames of a video. Ids that it does not match are
            groups of their own.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f"val_fraction {val} and test_fraction {test} must leave something to train on")
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        match = re.search(group, pair.id) if group else None
        groups.setdefault(match[match.re.groups and 1] if match else pair.id, []).append(pair)
    places = sorted((_place(seed, name), name) for name in groups)
    wanted = sum(share > 0 for share in (val, test)) + 1
    if len(places) < wanted:
        raise DataError(
            f"{len(places)} groups of samples cannot fill {wanted} splits; add data or name the splits"
        )
    names: dict[str, list[str]] = {"val": [], "test": [], "train": []}
    for place, name in places:
        names["val" if place < val else "test" if place < val + test else "train"].append(name)
    if val > 0 and not names["val"]:
        names["val"].append((names["test"] if len(names["test"]) > 1 else names["train"]).pop(0))
    if test > 0 and not names["test"]:
        names["test"].append((names["train"] if len(names["train"]) > 1 else names["val"]).pop(0))
    if not names["train"]:
        names["train"].append((names["test"] if len(names["test"]) > 1 else names["val"]).pop())
    return {
        split: sorted((pair for name in chosen for pair in groups[name]), key=lambda pair: pair.id)
        for split, chosen in names.items()
        if chosen
    }


def _place(seed: int, name: str) -> float:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
