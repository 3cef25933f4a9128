"""One run in full, and what differs between several."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from segtrail.compare.evaluation import SPLITS, evaluations
from segtrail.server.operations import Attribute
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names
from segtrail.ui.columns import INCIDENTAL

MAX_TEXT = 2_000_000
_NOT_VALUES = ("file", "fileSet", "floatSeries", "stringSeries", "imageSeries")
_TEXT_FILES = (names.CONFIG, names.GIT_DIFF, names.PACKAGES)
_FAIR = re.compile(r"parameters/(dataset|data|augmentation|class_names|ignore_index|num_classes)(/|$)")
# Where the data lies and how it is loaded does not change what is evaluated.
_HARMLESS = re.compile(r"/(root|download|cache|on_error|num_workers|batch_size|path)$")


def describe(attribute: Attribute) -> dict[str, Any]:
    """An attribute for the browser."""
    item: dict[str, Any] = {"path": attribute.path, "type": attribute.type}
    if attribute.type == "file":
        item |= {"size": attribute.value["size"], "ext": attribute.value.get("ext") or ""}
    elif attribute.type == "fileSet":
        item["size"] = attribute.value
    elif attribute.type == "imageSeries":
        item |= {"count": attribute.count, "last_step": attribute.last_step}
    elif attribute.type in ("floatSeries", "stringSeries"):
        item |= {"value": attribute.value, "count": attribute.count, "last_step": attribute.last_step}
        if attribute.type == "floatSeries":
            item |= {"min": attribute.min, "max": attribute.max}
    else:
        item["value"] = attribute.value
    return item


def attributes_page(
    store: Store, run: str, search: str, limit: int, offset: int
) -> tuple[int, list[dict[str, Any]]]:
    """Some attributes of a run by path, those that contain `search`, and how many there are."""
    wanted = search.lower()
    found = [a for path, a in store.attributes(run).items() if wanted in path.lower()]
    return len(found), [describe(attribute) for attribute in found[offset : offset + limit]]


def read_text(store: Store, run: str, path: str) -> str:
    """The text of a file attribute, cut at two million bytes.

    Raises:
        NotFoundError: the run has no such file, or its content is missing.
    """
    try:
        stream, _ = store.open_file(run, path)
    except NotFoundError:
        raise
    except (OSError, KeyError):
        raise NotFoundError(f"the file of {path} is missing from the store") from None
    with stream:
        return stream.read(MAX_TEXT).decode("utf-8", "replace")


def console(store: Store, run: str, limit: int = 2000) -> list[dict[str, Any]]:
    """The last lines that the run printed, by stream."""
    result = []
    for path, attribute in store.attributes(run).items():
        if attribute.type == "stringSeries" and path.rpartition("/")[2] in ("stdout", "stderr"):
            offset = max(attribute.count - limit, 0)
            values = store.text_series(run, path, offset, limit)["values"]
            text = "".join(value if value.endswith("\n") else value + "\n" for value in values)
            # A progress bar returns to the start of its line: what was written last stays.
            lines = [line.rpartition("\r")[2] for line in text.splitlines()]
            result.append({"path": path, "text": "\n".join(line for line in lines if line.strip())})
    return result


def differences(store: Store, runs: Sequence[str], reference: str) -> dict[str, Any]:
    """Parameters, environment and packages of several runs, side by side.

    Returns:
        ``rows``: group, path, one value for each run, and whether they differ
        in more than the run's folders; ``texts``: text files with
        whether they differ; ``warnings``: why a comparison with the reference would not be fair.
    """
    tables = [_values(store, run) for run in runs]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = []
    for key in sorted(keys):
        values = [table.get(key) for table in tables]
        differs = len(set(map(repr, values))) > 1
        rows.append({"path": key, "values": values, "differs": differs and not INCIDENTAL.search(key)})
    texts = []
    for path in _TEXT_FILES:
        contents = [_text_or_none(store, run, path) for run in runs]
        if any(content is not None for content in contents):
            texts.append(
                {
                    "path": path,
                    "differs": len(set(contents)) > 1,
                    "has": [content is not None for content in contents],
                }
            )
    return {"rows": rows, "texts": texts, "warnings": _fairness(store, runs, reference, tables)}


def text_diff(store: Store, run: str, reference: str, path: str) -> list[str]:
    """Unified diff of a text file from the reference to the run; empty where they are equal."""
    old = (_text_or_none(store, reference, path) or "").splitlines()
    new = (_text_or_none(store, run, path) or "").splitlines()
    return list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]


def _values(store: Store, run: str) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for path, attribute in store.attributes(run).items():
        shown = path.startswith(("parameters/", "environment/", "source_code/")) or path == names.TAGS
        if shown and attribute.type not in _NOT_VALUES:
            table[path] = attribute.value
    for line in (_text_or_none(store, run, names.PACKAGES) or "").splitlines():
        package, equals, version = line.partition("==")
        if equals:
            table[f"packages/{package.strip()}"] = version.strip()
    return table


def _text_or_none(store: Store, run: str, path: str) -> str | None:
    try:
        return read_text(store, run, path)
    except NotFoundError:
        return None


def _fairness(
    store: Store, runs: Sequence[str], reference: str, tables: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    by_run = dict(zip(runs, tables, strict=True))
    base = by_run.get(reference, {})
    warnings = []
    for run in runs:
        if run == reference:
            continue
        table = by_run[run]
        changed = [
            key
            for key in sorted({*base, *table})
            if _FAIR.match(key) and not _HARMLESS.search(key) and base.get(key) != table.get(key)
        ]
        reasons = []
        if changed:
            shown = ", ".join(key.removeprefix("parameters/").replace("/", ".") for key in changed[:4])
            reasons.append(f"data or preprocessing differ: {shown}" + (" …" if len(changed) > 4 else ""))
        reasons += _evaluation_reasons(store, run, reference)
        if reasons:
            warnings.append({"run": run, "reasons": reasons})
    return warnings


def _evaluation_reasons(store: Store, run: str, reference: str) -> list[str]:
    reasons = []
    for split in SPLITS:
        try:
            mine, theirs = evaluations(store, run, split), evaluations(store, reference, split)
        except ValueError as error:
            reasons.append(str(error))
            continue
        for which in ("best", "last"):
            if which in mine and which in theirs:
                if set(mine[which].ids) != set(theirs[which].ids):
                    reasons.append(f"they were evaluated on different {split} images")
                if mine[which].class_names != theirs[which].class_names:
                    reasons.append("their class lists differ")
                break
    return list(dict.fromkeys(reasons))
