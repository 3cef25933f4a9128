"""Other classes for an existing dataset: merged, renamed, left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from segtrail.data.datasets.base import Common, SegmentationDataset
from segtrail.data.datasets.nested import Nested, arguments_of, class_of, make
from segtrail.data.objects import boxes_of
from segtrail.data.types import ClassTable, DataError, Instances, Sample

Classes = Mapping[str, str | Sequence[str]] | Sequence[str]


class RemappedDataset(SegmentationDataset):
    """A dataset whose classes are merged, renamed or dropped, by name.

    Args:
        split: ``train``, ``val`` or ``test``.
        dataset: the original, a config node with ``_target_`` and ``_partial_: true``.
        classes: the new classes in id order: a mapping from new name to the old name or names, or a
            list of old names to keep. What it does not mention becomes void.
        rest: new class that takes what ``classes`` does not mention instead.
        class_names: null, or the new names.
        ignore_index: null, or that of the original.
        common: see :class:`SegmentationDataset`; how files are read is the original's affair.
    """

    def __init__(
        self,
        split: str,
        dataset: Nested,
        classes: Classes,
        *,
        rest: str | None = None,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.dataset: SegmentationDataset = make(dataset, split, common.get("instances", False))
        void = self.dataset.ignore_index
        if ignore_index not in (None, void):
            raise ValueError(
                f"ignore_index is {ignore_index}, but {void} in the remapped dataset; change it there"
            )
        table, self._lookup = remapping(
            ClassTable(self.dataset.class_names, self.dataset.palette), classes, rest
        )
        if class_names is not None and tuple(class_names) != table.names:
            raise DataError(f"dataset.classes makes the classes {list(table.names)}, not {list(class_names)}")
        super().__init__(
            split=split,
            classes=table,
            ids=self.dataset.ids,
            records=range(len(self.dataset)),
            ignore_index=void,
            **common,
        )

    @classmethod
    def class_table(
        cls, *, dataset: Nested, classes: Classes, rest: str | None = None, **config: Any
    ) -> ClassTable:
        return remapping(class_of(dataset).class_table(**arguments_of(dataset)), classes, rest)[0]

    @classmethod
    def splits(cls, *, dataset: Nested, **config: Any) -> tuple[str, ...]:
        return class_of(dataset).splits(**arguments_of(dataset))

    def read(self, index: int) -> Sample:
        sample = self.dataset[self.records[index]]
        objects = None if sample.instances is None else self._objects(sample.instances)
        return Sample(sample.image, self._map(sample.mask), sample.id, objects)

    def read_image(self, record: int) -> np.ndarray:
        return self.dataset.read_image(self.dataset.records[record])

    def read_mask(self, record: int) -> np.ndarray:
        return self._map(self.dataset.mask(record))

    def sources(self, record: int) -> tuple[Path, ...]:
        return self.dataset.sources(self.dataset.records[record])

    def describe(self, record: int) -> str:
        return self.dataset.describe(self.dataset.records[record])

    def _map(self, mask: np.ndarray) -> np.ndarray:
        table = np.where(self._lookup < 0, self.ignore_index, self._lookup)
        valid = mask != self.ignore_index
        mapped = table[np.where(valid, mask, 0)]
        small = mask.dtype == np.uint8 and 0 <= self.ignore_index < 256
        return np.where(valid, mapped, self.ignore_index).astype(np.uint8 if small else np.int32)

    def _objects(self, objects: Instances) -> Instances:
        labels = self._lookup[objects.labels]
        keep = labels >= 0
        masks = objects.masks[keep]
        return Instances(masks, labels[keep], boxes_of(masks), objects.iscrowd[keep])


def remapping(table: ClassTable, classes: Classes, rest: str | None) -> tuple[ClassTable, np.ndarray]:
    """New table, and (K,) int64 new id of each old one, -1 for void.

    Raises:
        DataError: an old name that is unknown or used twice, no class, or a ``rest`` that is none.
    """
    if not isinstance(classes, Mapping):
        classes = {name: name for name in classes}
    members = {new: [old] if isinstance(old, str) else list(old) for new, old in classes.items()}
    if not members:
        raise DataError("dataset.classes is empty; map each new name to old ones")
    lookup = np.full(len(table.names), -1, np.int64)
    for index, (new, olds) in enumerate(members.items()):
        for old in olds:
            if old not in table.names:
                raise DataError(
                    f"dataset.classes.{new}: no class {old!r}; there are {', '.join(table.names)}"
                )
            position = table.names.index(old)
            if lookup[position] >= 0:
                raise DataError(
                    f"dataset.classes: {old!r} is in both {list(members)[lookup[position]]!r} and {new!r}"
                )
            lookup[position] = index
    if rest is not None:
        if rest not in members:
            raise DataError(f"dataset.rest is {rest!r}, which is none of {', '.join(members)}")
        lookup[lookup < 0] = list(members).index(rest)
    first = [table.names.index(olds[0]) if olds else 0 for olds in members.values()]
    return ClassTable(tuple(members), table.palette[first]), lookup
