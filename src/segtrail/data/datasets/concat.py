"""Several datasets with the same classes as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from segtrail.data.datasets.base import SPLITS, Common, SegmentationDataset
from segtrail.data.datasets.nested import Nested, arguments_of, class_of, make
from segtrail.data.types import ClassTable, DataError, Instances, Sample


class ConcatDataset(SegmentationDataset):
    """Datasets one after the other; a split consists of those that have it.

    Ids get the dataset's name in front. How often each is seen in an epoch is set by its own
    ``repeat``. Different classes are made equal by ``dataset=remap`` inside.

    Args:
        split: ``train``, ``val`` or ``test``.
        datasets: config nodes with ``_target_`` and ``_partial_: true``, by name; a null is left out.
        class_names: null, or the common names.
        ignore_index: null, or the common one.
        common: see :class:`SegmentationDataset`; how files are read is the members' affair.
    """

    def __init__(
        self,
        split: str,
        datasets: Mapping[str, Nested | None],
        *,
        class_names: Sequence[str] | None = None,
        ignore_index: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        table = self.class_table(datasets=datasets)
        if class_names is not None and tuple(class_names) != table.names:
            raise DataError(f"the datasets have the classes {list(table.names)}, not {list(class_names)}")
        nodes = {
            name: node
            for name, node in _present(datasets).items()
            if split in class_of(node).splits(**arguments_of(node))
        }
        if not nodes:
            raise DataError(f"none of the datasets {', '.join(_present(datasets))} has a split {split!r}")
        self.members = [make(node, split, common.get("instances", False)) for node in nodes.values()]
        voids = {name: member.ignore_index for name, member in zip(nodes, self.members, strict=True)}
        if len({*voids.values(), ignore_index} - {None}) > 1:
            raise DataError(f"the datasets differ in ignore_index: {voids}; set them equal")
        self._ends = list(accumulate(len(member) for member in self.members))
        super().__init__(
            split=split,
            classes=table,
            ids=[f"{name}/{id_}" for name, m in zip(nodes, self.members, strict=True) for id_ in m.ids],
            records=range(self._ends[-1]),
            ignore_index=next(iter(voids.values())),
            **common,
        )
        if any(member.repeat_factors is not None for member in self.members):
            inner = np.concatenate(
                [np.ones(len(m)) if m.repeat_factors is None else m.repeat_factors for m in self.members]
            )[np.asarray(self.records)]
            self.repeat_factors = inner if self.repeat_factors is None else inner * self.repeat_factors

    @classmethod
    def class_table(cls, *, datasets: Mapping[str, Nested | None], **config: Any) -> ClassTable:
        tables = {
            name: class_of(node).class_table(**arguments_of(node))
            for name, node in _present(datasets).items()
        }
        first, *others = tables
        for other in others:
            if tables[other].names != tables[first].names:
                raise DataError(
                    f"{first!r} has the classes {list(tables[first].names)}, {other!r} "
                    f"{list(tables[other].names)}; make them equal with dataset=remap"
                )
        return tables[first]

    @classmethod
    def splits(cls, *, datasets: Mapping[str, Nested | None], **config: Any) -> tuple[str, ...]:
        found = {
            split
            for node in _present(datasets).values()
            for split in class_of(node).splits(**arguments_of(node))
        }
        return tuple(split for split in SPLITS if split in found)

    def read(self, index: int) -> Sample:
        member, inner = self._locate(self.records[index])
        sample = member[inner]
        return Sample(sample.image, sample.mask, self.ids[index], sample.instances)

    def read_image(self, record: int) -> np.ndarray:
        member, index = self._locate(record)
        return member.read_image(member.records[index])

    def read_mask(self, record: int) -> np.ndarray:
        member, index = self._locate(record)
        return member.mask(index)

    def read_instances(self, record: int) -> Instances | None:
        member, index = self._locate(record)
        return member.read_instances(member.records[index])

    def sources(self, record: int) -> tuple[Path, ...]:
        member, index = self._locate(record)
        return member.sources(member.records[index])

    def describe(self, record: int) -> str:
        member, index = self._locate(record)
        return member.describe(member.records[index])

    def _locate(self, record: int) -> tuple[SegmentationDataset, int]:
        number = bisect_right(self._ends, record)
        return self.members[number], record - (self._ends[number - 1] if number else 0)


def _present(datasets: Mapping[str, Nested | None]) -> dict[str, Nested]:
    nodes = {name: node for name, node in datasets.items() if node is not None}
    if not nodes:
        raise DataError("dataset.datasets is empty; give at least one dataset")
    return nodes
