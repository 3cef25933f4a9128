"""The pages and their API, for `segtrail ui` and for the server."""

from __future__ import annotations

import gzip
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from fastapi import APIRouter, Body, Depends, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from segtrail.server.auth import Auth
from segtrail.server.schema import containers
from segtrail.server.store import NotFoundError, Store
from segtrail.tracking import names
from segtrail.ui import charts, columns, details, samples, sweep, weights
from segtrail.ui.access import Access
from segtrail.ui.comparison import compare_page, confusion_page, scatter_page
from segtrail.ui.reply import binary_reply, json_reply

STATIC = Path(__file__).parent / "static"
BUILD_HINT = "the UI's libraries are missing: run `python scripts/build_ui.py` in the checkout"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Files that runs uploaded are content of strangers: no script, no network, an origin of their own.
_SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp")
_MAX_CELLS = 4096

Ids = Annotated[list[str], Query(default_factory=list)]
_T = TypeVar("_T")


def vendor_is_built() -> bool:
    """Whether the JavaScript libraries are in the package."""
    return (STATIC / "vendor/versions.json").exists()


class _Paths:
    """Attribute paths of each project, read again when the store has changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, tuple[int, dict[str, str]]] = {}

    def of(self, project: str) -> dict[str, str]:
        version = self.version()
        if self._known.get(project, (-1, {}))[0] != version:
            self._known[project] = version, columns.attribute_paths(self.store, project)
        return self._known[project][1]

    def version(self) -> int:
        return self.store.changes(2**62)[0]


def create_router(store: Store, auth: Auth | None = None) -> APIRouter:
    """Routes of the pages (``/``, ``/ui/static``), of their API (``/ui/api``) and of files (``/ui/file``).

    Args:
        store: the run store.
        auth: roles of the callers that the server's guard lets through.
    """
    access = Access(store, auth)
    router = APIRouter(include_in_schema=False, dependencies=[Depends(access)])
    _add_pages(router, store)
    _add_runs(router, store, _Paths(store), access)
    _add_views(router, store)
    _add_files(router, store)
    return router


# ---------------------------------------------------------------- pages and static files


def _add_pages(router: APIRouter, store: Store) -> None:
    compressed: dict[Path, tuple[str, bytes, bytes]] = {}

    def static_file(request: Request, path: Path) -> Response:
        if not path.is_file() or not path.resolve().is_relative_to(STATIC):
            raise HTTPException(404, f"there is no page {path.name}")
        stat = path.stat()
        etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        if path not in compressed or compressed[path][0] != etag:
            data = path.read_bytes()
            compressed[path] = etag, data, gzip.compress(data, 6)
        headers = {
            "ETag": etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _CSP,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        media_type = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                compressed[path][2], media_type=media_type, headers={**headers, "Content-Encoding": "gzip"}
            )
        return Response(compressed[path][1], media_type=media_type, headers=headers)

    @router.get("/")
    def index(request: Request) -> Response:
        return static_file(request, STATIC / "index.html")

    @router.get("/favicon.ico")
    def icon(request: Request) -> Response:
        return static_file(request, STATIC / "icon.svg")

    @router.get("/ui/static/{path:path}")
    def static(request: Request, path: str) -> Response:
        return static_file(request, STATIC / path)

    @router.get("/{workspace}/{project}/e/{sys_id}")
    @router.get("/{workspace}/{project}/e/{sys_id}/{rest:path}")
    def neptune_link(workspace: str, project: str, sys_id: str, rest: str = "") -> Response:
        """The address that Neptune's client prints."""
        with store.read() as connection:
            run = _found(lambda: store.container(connection, f"{workspace}/{project}/{sys_id}").id)
        return RedirectResponse(f"/?project={quote(f'{workspace}/{project}')}&page=run&run={run}")


# ---------------------------------------------------------------- the table of runs


def _add_runs(router: APIRouter, store: Store, paths: _Paths, access: Access) -> None:
    @router.get("/ui/api/projects")
    def projects(request: Request) -> Response:
        found = sorted(store.projects(), key=lambda project: -project["runs"])
        names_ = [project["name"] for project in found]
        return json_reply(request, {"projects": access.visible(request, names_)})

    @router.get("/ui/api/runs")
    def runs(
        request: Request,
        columns_: Annotated[list[str], Query(alias="columns", default_factory=list)],
        ids: Ids,
        project: str = "",
    ) -> Response:
        version = paths.version()
        if not project:
            return json_reply(request, {"version": version, "trashed": 0, "runs": [], "columns": []})
        table = _found(lambda: columns.runs_table(store, project, paths.of(project), columns_, ids or None))
        trashed = store.runs(project, query="`sys/trashed`:bool = true", limit=0).total
        return json_reply(request, {"version": version, "trashed": trashed, **table})

    @router.get("/ui/api/columns")
    def column_names(
        request: Request, project: str, search: Ids, limit: int = 500, type: str = ""
    ) -> Response:
        found = columns.search_columns(_found(lambda: paths.of(project)), search, limit, type)
        return json_reply(request, {"paths": list(found), "types": list(found.values())})

    @router.get("/ui/api/trash")
    def trash_can(request: Request, project: str) -> Response:
        return json_reply(request, {"runs": _found(lambda: columns.trashed_runs(store, project))})

    @router.get("/ui/api/changes")
    def changes(request: Request, since: int) -> Response:
        version, changed = store.changes(since)
        with store.read() as connection:
            last = connection.scalar(sa.select(sa.func.max(containers.c.modified)))
        return json_reply(request, {"version": version, "runs": changed, "changed": last})

    @router.post("/ui/api/tags")
    def set_tags(
        request: Request, run: Annotated[str, Body()], tags: Annotated[list[str], Body()]
    ) -> Response:
        _same_site(request)
        _found(lambda: store.set_tags(run, tags))
        return json_reply(request, {})

    @router.post("/ui/api/trash")
    def trash(request: Request, runs: Annotated[list[str], Body(embed=True)]) -> Response:
        _same_site(request)
        _found(lambda: store.trash(runs))
        return json_reply(request, {})

    @router.post("/ui/api/restore")
    def restore(request: Request, runs: Annotated[list[str], Body(embed=True)]) -> Response:
        _same_site(request)
        _found(lambda: store.restore(runs))
        return json_reply(request, {})

    @router.get("/ui/api/importance")
    def importance(request: Request, project: str, metric: str, aggregate: str = "max") -> Response:
        known = _found(lambda: paths.of(project))
        table = columns.runs_table(store, project, known, [metric])
        by_path = {column["path"]: column for column in table["columns"]}
        values = by_path.get(metric, {}).get(aggregate, [])
        chosen = {
            path: column["value"]
            for path, column in by_path.items()
            if column["varies"] and path.startswith("parameters/")
        }
        return json_reply(request, {"importance": sweep.importance(chosen, values) if values else []})


# ---------------------------------------------------------------- what the pages show


def _add_views(router: APIRouter, store: Store) -> None:
    maps = samples.LabelMaps(store)

    @router.post("/ui/api/series")
    def series(
        request: Request,
        runs: Annotated[list[str], Body()],
        path: Annotated[str, Body()],
        buckets: Annotated[int, Body()] = 1000,
        x: Annotated[str, Body()] = "step",
        start: Annotated[float | None, Body()] = None,
        stop: Annotated[float | None, Body()] = None,
    ) -> Response:
        found = _found(lambda: charts.curves(store, runs, path, buckets, x, start, stop))
        header = {"nonfinite": found.nonfinite, "exact": found.exact}
        if found.exact:  # mean, low and high are the same points
            return binary_reply(request, header, x=found.x, mean=found.mean)
        return binary_reply(request, header, x=found.x, mean=found.mean, low=found.low, high=found.high)

    @router.get("/ui/api/samples")
    def samples_overview(request: Request, runs: Ids) -> Response:
        return json_reply(request, _found(lambda: samples.overview(store, runs)))

    @router.post("/ui/api/scores")
    def scores(
        request: Request,
        cells: Annotated[list[dict[str, Any]], Body()],
        reference: Annotated[str, Body()],
        ignore_index: Annotated[int, Body()] = 255,
    ) -> Response:
        if len(cells) > 50 * _MAX_CELLS:
            raise HTTPException(400, f"{len(cells)} cells are too many; choose fewer runs")
        results = samples.scores(store, maps, cells, reference, ignore_index)
        return json_reply(request, {"scores": results})

    @router.post("/ui/api/labels")
    def labels(
        request: Request,
        cells: Annotated[list[tuple[str, str, int | None]], Body()],
        size: Annotated[int, Body()],
    ) -> Response:
        headers, pixels = samples.images(maps, cells[:_MAX_CELLS], size)
        return binary_reply(request, {"cells": headers}, pixels=pixels)

    @router.get("/ui/api/compare")
    def compare(
        request: Request,
        reference: str,
        runs: Ids,
        split: str = "val",
        which: str = "best",
    ) -> Response:
        return json_reply(request, compare_page(store, runs, reference, split, which))

    @router.get("/ui/api/confusion")
    def confusion(request: Request, run: str, split: str = "val", which: str = "best") -> Response:
        return json_reply(request, _found(lambda: confusion_page(store, run, split, which)))

    @router.get("/ui/api/scatter")
    def scatter(
        request: Request, run: str, reference: str, split: str = "val", which: str = "best"
    ) -> Response:
        return json_reply(request, _found(lambda: scatter_page(store, run, reference, split, which)))

    @router.get("/ui/api/diff")
    def diff(request: Request, reference: str, runs: Ids) -> Response:
        return json_reply(request, _found(lambda: details.differences(store, runs, reference)))

    @router.get("/ui/api/textdiff")
    def text_diff(request: Request, run: str, reference: str, path: str) -> Response:
        return json_reply(request, {"lines": _found(lambda: details.text_diff(store, run, reference, path))})

    @router.get("/ui/api/attributes")
    def attributes(
        request: Request, run: str, search: str = "", limit: int = 500, offset: int = 0
    ) -> Response:
        total, found = _found(lambda: details.attributes_page(store, run, search, limit, offset))
        return json_reply(request, {"total": total, "attributes": found})

    @router.get("/ui/api/text")
    def text(request: Request, run: str, path: str) -> Response:
        return json_reply(request, {"text": _found(lambda: details.read_text(store, run, path))})

    @router.get("/ui/api/console")
    def console(request: Request, run: str) -> Response:
        return json_reply(request, {"streams": _found(lambda: details.console(store, run))})

    @router.get("/ui/api/weights")
    def weights_overview(request: Request, run: str, namespace: str = names.WEIGHTS) -> Response:
        return json_reply(request, _found(lambda: weights.overview(store, run, namespace)))

    @router.get("/ui/api/ridgelines")
    def ridgelines(request: Request, layer: str, runs: Ids, namespace: str = names.WEIGHTS) -> Response:
        return json_reply(request, _found(lambda: weights.ridgelines(store, runs, layer, namespace)))


# ---------------------------------------------------------------- files


def _add_files(router: APIRouter, store: Store) -> None:
    @router.get("/ui/image")
    def image(request: Request, run: str, path: str, index: int | None = None, size: int = 0) -> Response:
        """An image of a series, or a file that is an image; smaller than `size` if that is given."""
        attribute = _found(lambda: store.attribute(run, path))
        if attribute.type == "imageSeries":
            page = store.series_page(run, path, "imageSeries", index or 0, 1)
            if not page["values"]:
                raise HTTPException(404, f"{path} has no image {index}")
            blob = page["values"][0]["blob"]
        else:
            blob = _found(lambda: store.attribute(run, path, "file")).value["blob"]
        etag = f'"{blob[:32]}-{size}"'
        headers = {"ETag": etag, "Cache-Control": "private, max-age=60", **_FILE_HEADERS}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        data = _blob(store, blob, path)
        media_type = _image_type(data)
        if media_type is None:
            raise HTTPException(415, f"{path} is no image that a browser shows")
        if size:
            small = samples.thumbnail(data, size)
            if small is not None:
                data, media_type = small, "image/jpeg"
        return Response(data, media_type=media_type, headers=headers)

    @router.get("/ui/file")
    def file(run: str, path: str, name: str | None = None, preview: bool = False) -> Response:
        """A file to save or, with `preview`, to look at inside a frame that can do nothing."""
        try:
            stream, description = store.open_file(run, path, name)
        except NotFoundError as error:
            raise HTTPException(404, str(error)) from None
        except (OSError, KeyError):
            raise HTTPException(410, f"the file of {path} is missing from the store") from None
        guessed = mimetypes.guess_type(description["name"])[0] or "application/octet-stream"
        disposition = "inline" if preview or guessed in _IMAGES else "attachment"
        headers = {
            **_FILE_HEADERS,
            "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(description['name'], safe='')}",
        }
        if disposition == "inline" and not guessed.startswith(("image/", "text/html")):
            guessed = "text/plain; charset=utf-8"
        return StreamingResponse(_pieces(stream), media_type=guessed, headers=headers)


_FILE_HEADERS = {
    "Content-Security-Policy": _SANDBOX,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _pieces(stream: Any) -> Any:
    with stream:
        while piece := stream.read(1 << 20):
            yield piece


def _blob(store: Store, key: str, path: str) -> bytes:
    try:
        with store.open_blob(key) as stream:
            return stream.read()
    except (OSError, KeyError):
        raise HTTPException(410, f"the image of {path} is missing from the store") from None


def _image_type(data: bytes) -> str | None:
    for magic, media_type in (
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"BM", "image/bmp"),
    ):
        if data.startswith(magic):
            return media_type
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _found(call: Callable[[], _T]) -> _T:
    """Turns what is not there into a 404 and what cannot be into a 400, each with its reason."""
    try:
        return call()
    except NotFoundError as error:
        raise HTTPException(404, str(error)) from None
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


def _same_site(request: Request) -> None:
    """Refuses a change that another site's page asks for."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "changes are accepted from segtrail's own pages only")
