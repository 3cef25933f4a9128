"""Datasets inside of datasets: config nodes that are made when the split is known."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from segtrail.data.datasets.base import SegmentationDataset

Nested = Callable[..., SegmentationDataset] | Mapping[str, Any]
"""A factory that takes ``split``, or a config node with ``_target_``."""


def class_of(node: Nested) -> type[SegmentationDataset]:
    """Class of the dataset that a node makes."""
    if isinstance(node, Mapping):
        module, _, name = str(node["_target_"]).rpartition(".")
        return getattr(importlib.import_module(module), name)
    found = node.func if isinstance(node, partial) else node
    if not (isinstance(found, type) and issubclass(found, SegmentationDataset)):
        raise TypeError(f"{found!r} is no dataset class; give a node with _target_ and _partial_: true")
    return found


def arguments_of(node: Nested) -> dict[str, Any]:
    """Configuration that a node gives to its class."""
    if isinstance(node, Mapping):
        return {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    return dict(node.keywords) if isinstance(node, partial) else {}


def make(node: Nested, split: str, instances: bool = False) -> SegmentationDataset:
    """The dataset of one split, with objects if the node or the caller asks for them."""
    arguments = arguments_of(node) | ({"instances": True} if instances else {})
    return class_of(node)(split=split, **arguments)
