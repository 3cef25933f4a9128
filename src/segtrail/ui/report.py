"""`segtrail report`: the comparison of some runs as one HTML file that needs nothing else."""

from __future__ import annotations

import argparse
import base64
import io
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segtrail.server.ingest import Follower
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names
from segtrail.tracking.label_map import decode_label_map
from segtrail.ui import charts, details, samples
from segtrail.ui.app import cached_store, neptune_folder
from segtrail.ui.comparison import compare_page

COLORS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#aa4499", "#33a6dd", "#999933", "#ee3377")
_MAX_SAMPLES = 6
_THUMBNAIL = 240
_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;color:#1c2430;max-width:1100px;margin:32px auto;padding:0 20px}
h1{font-size:24px}h2{font-size:18px;margin-top:36px;border-bottom:1px solid #ddd;padding-bottom:4px}
table{border-collapse:collapse}
td,th{padding:4px 10px;border-bottom:1px solid #e5e5e5;text-align:left;vertical-align:top}
th{font-weight:600;color:#555}td.n{text-align:right;font-variant-numeric:tabular-nums}.m{color:#68737f}
.key{display:inline-block;width:14px;height:4px;margin-right:6px;vertical-align:middle}
.good{color:#0c7a54}.bad{color:#b5401c}img{width:100%;border-radius:4px;display:block}.w{overflow-x:auto}
.grid td{border:0;padding:3px;width:170px;font-size:12px}code{background:#f0f2f5;padding:1px 4px}
.warn{background:#fff4d6;padding:8px 12px;border-radius:6px}
"""


def build_report(store: Store, runs: Sequence[str], metric: str = "val/mIoU", split: str = "val") -> str:
    """Writes the comparison of runs, the first of which is the reference.

    The file holds no script and loads nothing: images are inside it, and all text of the runs is escaped.

    Raises:
        NotFoundError: there is no such run.
    """
    labels = {run: _name(store, run) for run in runs}
    colors = {run: COLORS[i % len(COLORS)] for i, run in enumerate(runs)}
    page = compare_page(store, runs, runs[0], split, "best")
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    parts = [
        f"<h1>{escape(', '.join(labels.values()))}</h1>",
        f'<p class="m">Reference: {escape(labels[runs[0]])}. Written {written}.</p>',
        _verdicts(page, labels, colors),
        _curve(store, runs, metric, labels, colors),
        _classes(page, labels, colors),
        _differences(store, runs, labels, colors),
        _samples(store, runs, labels, colors),
        _commands(store, runs, labels),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(' and '.join(labels.values()))}</title><style>{_STYLE}</style>"
        + "".join(parts)
        + "</html>"
    )


def _name(store: Store, run: str) -> str:
    try:
        return str(store.attribute(run, "sys/name").value)
    except NotFoundError:
        with store.read() as connection:
            return str(store.container(connection, run).sys_id)


def _key(color: str, label: str) -> str:
    return f'<span class="key" style="background:{color}"></span>{escape(label)}'


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:+.2f}".replace("-", "−")


def _p(value: float | None) -> str:
    return "n/a" if value is None else "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], style: str = "") -> str:
    """A table of cells that are HTML already; cells that start with a digit or sign are aligned right."""
    body = "".join("<tr>" + "".join(cell for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="w"><table class="{style}"><tr>'
        + "".join(f"<th>{cell}</th>" for cell in head)
        + f"</tr>{body}</table></div>"
    )


def _td(content: str, number: bool = False) -> str:
    return f'<td class="n">{content}</td>' if number else f"<td>{content}</td>"


def _verdicts(page: dict[str, Any], labels: dict[str, str], colors: dict[str, str]) -> str:
    lines = []
    for row in page["runs"]:
        if not row.get("difference"):
            continue
        value, p_value = row["difference"][-1], row["p"][-1]
        sure = p_value is not None and p_value <= 0.05
        verdict = "is not distinguishable from the reference"
        if sure and value:
            verdict = "is better than the reference" if value > 0 else "is worse than the reference"
        interval = f"95 % interval {_signed(row['low'][-1])} to {_signed(row['high'][-1])}"
        notes = "".join(f'<br><span class="m">{escape(note)}</span>' for note in row["notes"])
        lines.append(
            f"<p>{_key(colors[row['run']], labels[row['run']])} <b>{verdict}</b>: {_signed(value)} mIoU "
            f"({interval}, p {_p(p_value)}, {row['paired']} images){notes}</p>"
        )
    missing = [
        f'<p class="m">{_key(colors[m["run"]], labels[m["run"]])}: {escape(m["why"])}</p>'
        for m in page["missing"]
    ]
    note = '<p class="m">Paired permutation test and BCa bootstrap over the images both runs evaluated.</p>'
    return "<h2>Verdict</h2>" + "".join(lines + missing) + (note if lines else "")


def _classes(page: dict[str, Any], labels: dict[str, str], colors: dict[str, str]) -> str:
    if not page["runs"]:
        return ""
    rows = []
    for index, class_name in enumerate([*page["classes"], "mean"]):
        cells = [_td(escape(class_name))]
        for row in page["runs"]:
            last = index == len(page["classes"])
            value = row["mean"] if last else row["iou"][index]
            text = "n/a" if value is None else f"{100 * value:.2f}"
            difference = (row.get("difference") or [None] * (index + 1))[index]
            if difference is not None:
                p_value = row["p" if last else "p_holm"][index]
                tone = "good" if difference > 0 else "bad"
                star = " *" if p_value is not None and p_value <= 0.05 else ""
                text += f' <span class="{tone}">{_signed(difference)}{star}</span>'
            cells.append(_td(text, number=True))
        rows.append(cells)
    head = ["class", *(_key(colors[row["run"]], labels[row["run"]]) for row in page["runs"])]
    note = '<p class="m">* differs at the 5 % level, corrected over the classes (Holm).</p>'
    return "<h2>IoU by class, %</h2>" + _table(head, rows) + note


def _curve(
    store: Store, runs: Sequence[str], metric: str, labels: dict[str, str], colors: dict[str, str]
) -> str:
    found = charts.curves(store, runs, metric, 400)
    finite = found.mean[np.isfinite(found.mean)]
    if not finite.size:
        return ""
    low, high = float(finite.min()), float(finite.max())
    spread = (high - low) or 1.0
    left, right = float(found.x[0]), float(found.x[-1])
    lines = []
    for run, row in zip(runs, found.mean, strict=True):
        points = [
            f"{50 + 830 * (x - left) / ((right - left) or 1):.1f},{230 - 210 * (y - low) / spread:.1f}"
            for x, y in zip(found.x, row, strict=True)
            if np.isfinite(y)
        ]
        lines.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colors[run]}" stroke-width="2"/>'
        )
    marks = [(45, 234, f"{low:.4g}"), (45, 26, f"{high:.4g}")]
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="end" font-size="11">{t}</text>' for x, y, t in marks)
    texts += f'<text x="50" y="250" font-size="11">step {left:g}</text>'
    texts += f'<text x="880" y="250" text-anchor="end" font-size="11">{right:g}</text>'
    legend = " &nbsp; ".join(_key(colors[run], labels[run]) for run in runs)
    return (
        f'<h2>{escape(metric)}</h2><p>{legend}</p><svg viewBox="0 0 900 256" role="img">'
        f'<path d="M50 15V230H880" fill="none" stroke="#bbb"/>{"".join(lines)}{texts}</svg>'
    )


def _differences(store: Store, runs: Sequence[str], labels: dict[str, str], colors: dict[str, str]) -> str:
    found = details.differences(store, runs, runs[0])
    warnings = "".join(
        f'<p class="warn"><b>{escape(labels[w["run"]])}</b> is not compared fairly: '
        f"{escape('; '.join(w['reasons']))}.</p>"
        for w in found["warnings"]
    )
    rows = [
        [_td(escape(row["path"])), *(_td(escape(_text(v))) for v in row["values"])]
        for row in found["rows"]
        if row["differs"]
    ][:200]
    head = ["", *(_key(colors[run], labels[run]) for run in runs)]
    return "<h2>What differs</h2>" + warnings + (_table(head, rows) if rows else "<p>Nothing.</p>")


def _text(value: Any) -> str:
    return "–" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def _samples(store: Store, runs: Sequence[str], labels: dict[str, str], colors: dict[str, str]) -> str:
    overview = samples.overview(store, runs)
    maps = samples.LabelMaps(store)
    cells: list[dict[str, Any]] = []
    place: dict[tuple[str, str], int] = {}
    for run in runs:
        entry = overview["runs"][run]
        for sample, item in entry["samples"].items():
            steps = item.get("steps") or []
            if not steps:
                continue
            best = (
                len(steps) if entry["best"] is None else int(np.searchsorted(steps, entry["best"], "right"))
            )
            place[run, sample] = len(cells)
            cells.append({"run": run, "sample": sample, "index": max(best - 1, 0)})
    if not cells:
        return ""
    scores = samples.scores(store, maps, cells, runs[0], overview["ignore_index"])
    first = {s: scores[place[runs[0], s]].get("mean") for s in overview["samples"] if (runs[0], s) in place}
    worst = sorted(first, key=lambda sample: (first[sample] is None, first[sample]))[:_MAX_SAMPLES]
    rows = []
    for sample in worst:
        owner = next(
            (run for run in runs if "image" in overview["runs"][run]["samples"].get(sample, {})), None
        )
        base = _read(store, owner, names.sample_image(sample)) if owner else None
        row = [
            _td(escape(sample)),
            _td(_picture(base, None)),
            _td(_picture(base, _first(store, runs, names.sample_target(sample)))),
        ]
        for run in runs:
            index = place.get((run, sample))
            if index is None or "missing" in scores[index]:
                row.append(_td("n/a"))
                continue
            cell = cells[index]
            with store.open_blob(maps.blob((run, names.sample_prediction(sample), cell["index"]))) as stream:
                picture = _picture(base, stream.read())
            mean = scores[index]["mean"]
            row.append(_td(picture + ("" if mean is None else f"IoU {100 * mean:.1f} %")))
        rows.append(row)
    head = ["", "input", "truth", *(_key(colors[run], labels[run]) for run in runs)]
    note = '<p class="m">At the best step of each run, the reference\'s worst first.</p>'
    return "<h2>Samples</h2>" + note + _table(head, rows, "grid")


def _read(store: Store, run: str, path: str) -> bytes | None:
    try:
        stream, _ = store.open_file(run, path)
    except (NotFoundError, OSError, KeyError):
        return None
    with stream:
        return stream.read()


def _first(store: Store, runs: Sequence[str], path: str) -> bytes | None:
    found = (_read(store, run, path) for run in runs)
    return next((data for data in found if data), None)


def _picture(base: bytes | None, label_map: bytes | None) -> str:
    """An <img> of the photograph with the label map's colors over it."""
    picture = Image.open(io.BytesIO(base)).convert("RGB") if base else None
    if label_map is not None:
        decode_label_map(label_map)  # only what is a label map is drawn
        colors = Image.open(io.BytesIO(label_map)).convert("RGB")
        picture = Image.blend(picture.resize(colors.size), colors, 0.6) if picture else colors
    if picture is None:
        return "n/a"
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if label_map is None and max(picture.size) < 64 else "JPEG", quality=88)
    kind = "png" if buffer.getvalue()[:4] == b"\x89PNG" else "jpeg"
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _commands(store: Store, runs: Sequence[str], labels: dict[str, str]) -> str:
    rows = []
    for run in runs:
        try:
            command = str(store.attribute(run, names.COMMAND_LINE).value)
        except NotFoundError:
            continue
        rows.append([_td(escape(labels[run])), _td(f"<code>{escape(command)}</code>")])
    return "<h2>How they were made</h2>" + _table(["run", "command"], rows) if rows else ""


def find_run(store: Store, wanted: str) -> str:
    """The id of a run by its id, its short id (``PRO-1``) or its name.

    Raises:
        NotFoundError: there is none.
        ValueError: several runs have that name.
    """
    page = store.runs(query="`sys/trashed`:bool = false", columns=["sys/name"])
    exact = [run["id"] for run in page.runs if wanted in (run["id"], run["sys_id"])]
    named = [run["id"] for run in page.runs if run["attributes"].get("sys/name", {}).get("value") == wanted]
    found = exact or named
    if not found:
        raise NotFoundError(f"there is no run {wanted}; `segtrail ui` lists them")
    if len(found) > 1:
        raise ValueError(f"{len(found)} runs are named {wanted}; give the id of one: {', '.join(found)}")
    return str(found[0])


def main(argv: list[str] | None = None) -> int:
    """Runs `segtrail report`."""
    parser = argparse.ArgumentParser(
        prog="segtrail report", description="Write the comparison of runs as one HTML file."
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="id, short id or name; the first is the reference"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default report.html")
    parser.add_argument("--dir", type=Path, default=Path(), help="folder with .neptune (default .)")
    parser.add_argument("--store", help="a store of `segtrail server`: its folder or database URL")
    parser.add_argument("--blobs", help="where that store's files are, if not beside the database")
    parser.add_argument("--metric", default="val/mIoU", help="the curve to draw (default val/mIoU)")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    arguments = parser.parse_args(argv)
    if arguments.store:
        store = Store.open(arguments.store, arguments.blobs)
    else:
        folder = neptune_folder(arguments.dir)
        store = cached_store([folder])
        Follower(store, [folder]).poll()
    try:
        runs = list(dict.fromkeys(find_run(store, run) for run in arguments.runs))
        text = build_report(store, runs, arguments.metric, arguments.split)
        arguments.output.write_text(text, encoding="utf-8")
    except (NotFoundError, ValueError, OSError) as error:
        print(f"segtrail report: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    print(f"{arguments.output}: {len(runs)} runs, {arguments.output.stat().st_size / 1e6:.1f} MB")
    return 0
