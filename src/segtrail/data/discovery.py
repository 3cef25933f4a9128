"""The kind of a folder's masks and its classes, read from the files where nobody wrote them down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segtrail.data.class_files import (
    ClassEntry,
    color_name,
    find_class_file,
    named,
    read_class_file,
    table_of,
)
from segtrail.data.files import read_labels
from segtrail.data.layout import POLYGON_SUFFIXES, Layout
from segtrail.data.masks import is_grey, pack_colors
from segtrail.data.outlines import BACKGROUNDS, labels_of
from segtrail.data.types import ClassTable, DataError

MOST_COLORS = 64  # a set of masks with more distinct colors was smoothed or compressed
SCANNED = 256  # that many masks are looked at, evenly spaced


@dataclass(frozen=True)
class Scheme:
    """What the masks of a folder are and what their values mean.

    Attributes:
        kind: ``index``, ``color``, ``binary``, ``labelme`` or ``yolo``.
        entries: classes in id order, each with the value or color that stands for it.
        void: further classes of the class file, which are void here.
    """

    kind: str
    entries: tuple[ClassEntry, ...]
    void: tuple[ClassEntry, ...] = ()

    @property
    def table(self) -> ClassTable:
        return table_of(self.entries)


def find_scheme(
    layout: Layout,
    class_names: Sequence[str] | None,
    class_file: str | None,
    void_classes: Sequence[str],
    void_values: Sequence[int | Sequence[int]],
) -> Scheme:
    """Classes by configuration, by class file, or by the masks themselves, in this order.

    Where there is a class file, configured names choose among its classes and the others are void.

    Raises:
        DataError: an unknown name, or colors without a table.
    """
    path = layout.root / class_file if class_file else find_class_file(layout.root)
    listed = read_class_file(path) if path else None
    chosen = None if class_names is None else named(class_names)
    masks = [pair.mask for pair in layout.all_pairs()]
    if not masks:
        raise DataError(f"{layout.root}: no image has a mask; masks are paired by the stem of the file")
    kind = layout.mask_kind
    if kind == "auto":
        known = chosen or listed
        kind = detect_kind(masks, len(known) if known else None)
    if listed is None:
        listed = chosen or classes_of_masks(masks, kind, void_values)
    by_name = {entry.name: entry for entry in listed}
    if kind in POLYGON_SUFFIXES and not set(BACKGROUNDS) & by_name.keys():
        by_name = {"background": ClassEntry("background", -1)} | by_name
    for name in [*(entry.name for entry in chosen or ()), *void_classes]:
        if name not in by_name:
            raise DataError(f"{path or layout.root}: no class {name!r}; there are {', '.join(by_name)}")
    wanted = [entry.name for entry in chosen] if chosen else [n for n in by_name if n not in void_classes]
    entries = tuple(by_name[name] for name in wanted)
    if kind == "color" and any(entry.color is None for entry in entries):
        raise DataError(
            f"{layout.root}: color masks need the color of each class; write them to label_colors.txt, "
            f"one 'R G B name' a line"
        )
    return Scheme(kind, entries, tuple(entry for entry in listed if entry.name not in wanted))


def detect_kind(masks: Sequence[Path], num_classes: int | None) -> str:
    """``labelme``, ``yolo``, ``color``, ``binary`` or ``index``, by suffix and by the values of a few masks.

    Args:
        masks: mask files.
        num_classes: number of classes, where it is known; decides what 0 and 255 alone mean.
    """
    suffix = masks[0].suffix.lower()
    if suffix in (".json", ".txt"):
        return "labelme" if suffix == ".json" else "yolo"
    values: set[int] = set()
    for path in spread(masks, 16):
        labels = read_labels(path)
        if labels.ndim == 3 and not is_grey(labels):
            return "color"
        values.update(np.unique(labels).tolist())
    # Background and void alone would look the same: with more classes than two it must be that.
    return "binary" if 255 in values and values <= {0, 255} and (num_classes or 2) <= 2 else "index"


def classes_of_masks(
    masks: Sequence[Path], kind: str, void: Sequence[int | Sequence[int]]
) -> list[ClassEntry]:
    """One class for each value or color in the masks, named after it.

    Args:
        masks: mask files; at most :data:`SCANNED` are read.
        kind: ``index``, ``color`` or ``binary``.
        void: values or colors that are no class.

    Raises:
        DataError: more than :data:`MOST_COLORS` colors.
    """
    if kind == "binary":
        return named(["background", "foreground"])
    if kind == "labelme":
        drawn: set[str] = set().union(*(labels_of(path) for path in masks))
        return named(["background", *sorted(drawn - set(BACKGROUNDS))])
    if kind == "yolo":
        highest = max(
            (int(line.split()[0]) for path in masks for line in path.read_text().splitlines() if line),
            default=0,
        )
        return named(["background", *(f"class_{value}" for value in range(highest + 1))])
    if kind == "color":
        return _colors(masks, {tuple(color) for color in void if not isinstance(color, int)})
    highest = 0
    skipped = {value for value in void if isinstance(value, int)}
    for path in spread(masks, SCANNED):
        labels = read_labels(path)
        values = set(np.unique(labels).tolist()) - skipped
        highest = max(highest, *values, 0)
    return [ClassEntry(f"class_{value}", value) for value in range(highest + 1)]


def _colors(masks: Sequence[Path], void: set[tuple[int, ...]]) -> list[ClassEntry]:
    colors: set[tuple[int, ...]] = set()
    for path in spread(masks, SCANNED):
        packed = np.unique(pack_colors(read_labels(path))).tolist()
        colors.update((value >> 16, value >> 8 & 255, value & 255) for value in packed)
        if len(colors) > MOST_COLORS:
            raise DataError(
                f"{path}: {len(colors)} colors so far, too many for classes; the mask was smoothed or "
                f"compressed, or list the classes in label_colors.txt"
            )
    ordered = sorted(colors - void)
    return named([color_name(color) for color in ordered])


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of the paths, evenly spaced."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).round().astype(int)]
