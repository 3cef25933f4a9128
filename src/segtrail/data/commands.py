"""``segtrail data check`` and ``segtrail data stats``: look at a dataset before training on it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from segtrail.data.datasets.base import SegmentationDataset
from segtrail.data.datasets.nested import arguments_of, class_of
from segtrail.data.inspection import contact_sheet, inspect
from segtrail.data.statistics import Statistics, gather

_SHOWN = 50  # lines of a report on the screen; --report writes all


def main(argv: Sequence[str]) -> int:
    """Run the command; 0 if all is well, 1 if the data has errors."""
    options = _parser().parse_args(argv)
    import segtrail  # late: composing imports Hydra

    node = plain(segtrail.compose(options.override).dataset)
    dataset, arguments = class_of(node), arguments_of(node)
    splits = [options.split] if options.split else list(dataset.splits(**arguments))
    make = partial(dataset, **arguments)
    return _check(make, splits, options) if options.command == "check" else _stats(make, splits, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="segtrail data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="every problem of a dataset, file by file, with its remedy")
    check.add_argument("--report", type=Path, help="write every line there")
    check.add_argument("--sheet", type=Path, default=Path("samples.png"), help="contact sheet of samples")
    stats = commands.add_parser("stats", help="counts, class shares and weights, sizes, mean and deviation")
    stats.add_argument("--output", type=Path, help="write the numbers there, as JSON")
    for command in (check, stats):
        command.add_argument("--split", help="only this one")
        command.add_argument(
            "override", nargs="*", help="as for training: dataset=folder dataset.root=/data/mine"
        )
    return parser


def plain(node: Any) -> Any:
    """Dictionaries and lists of a config node."""
    if hasattr(node, "items"):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, str) or not hasattr(node, "__iter__"):
        return node
    return [plain(value) for value in node]


def _check(make: Callable[..., SegmentationDataset], splits: list[str], options: argparse.Namespace) -> int:
    console = Console(soft_wrap=True, highlight=False)
    with console.status("reading every sample"):
        report = inspect(make, tuple(splits))
    lines = [f"error: {line}" for line in report.errors] + [f"warning: {line}" for line in report.warnings]
    for line in lines[:_SHOWN]:
        console.print(line, markup=False)
    if len(lines) > _SHOWN:
        console.print(f"... and {len(lines) - _SHOWN} more; --report FILE writes all")
    if options.report:
        options.report.write_text("".join(f"{line}\n" for line in lines))
    if report.datasets:
        cv2.imwrite(str(options.sheet), cv2.cvtColor(contact_sheet(report.datasets), cv2.COLOR_RGB2BGR))
        console.print(f"samples to look at: {options.sheet}")
    counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in report.datasets.items())
    console.print(
        f"{len(report.errors)} errors, {len(report.warnings)} warnings; good samples: {counts or 'none'}"
    )
    return 1 if report.errors else 0


def _stats(make: Callable[..., SegmentationDataset], splits: list[str], options: argparse.Namespace) -> int:
    console = Console()
    found: dict[str, Statistics] = {}
    for split in splits:
        with console.status(f"reading {split}"):
            found[split] = gather(make(split=split))
        console.print(_table(split, found[split]))
    if options.output:
        content = {split: statistics.as_dict() for split, statistics in found.items()}
        options.output.write_text(json.dumps(content, indent=1))
        console.print(f"written to {options.output}")
    return 0


def _table(split: str, statistics: Statistics) -> Table:
    smallest, largest = statistics.sizes.min(axis=0), statistics.sizes.max(axis=0)
    table = Table(
        title=f"{split}: {statistics.count} images of {smallest[1]}x{smallest[0]} to "
        f"{largest[1]}x{largest[0]}, {statistics.void:.1%} void, "
        f"mean {_numbers(statistics.mean)}, std {_numbers(statistics.std)}"
    )
    weights = statistics.weights()
    for heading in ("class", "share", "images", *(name.replace("_", " ") for name in weights)):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for index, name in enumerate(statistics.class_names):
        table.add_row(
            name,
            f"{statistics.shares[index]:.3%}",
            str(statistics.images[index]),
            *(f"{values[index]:.3f}" for values in weights.values()),
        )
    return table


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.3f}" for value in values)
