"""Replies of the API: compact JSON, and a JSON header followed by arrays."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import numpy as np
from fastapi import Request, Response

_COMPRESS_FROM = 2_000
_CODES = {np.dtype("<f4"): "f4", np.dtype("<f8"): "f8", np.dtype("u1"): "u1", np.dtype("<i4"): "i4"}


def plain(values: Any) -> Any:
    """Numbers for JSON: arrays become lists, and what is not finite becomes None."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        return float(array) if np.isfinite(array) else None
    if array.ndim > 1:
        return [plain(row) for row in array]
    return [value if np.isfinite(value) else None for value in array.tolist()]


def json_reply(request: Request, data: Any) -> Response:
    """JSON, compressed where the browser takes it."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return _compressed(request, body, "application/json")


def binary_reply(request: Request, header: dict[str, Any], **arrays: np.ndarray) -> Response:
    """A JSON header and arrays of float32, float64, int32 or uint8.

    Layout: u32 length of the header, the header padded with spaces so that the arrays start at a multiple
    of 8, the arrays each padded to a multiple of 8. ``header["arrays"]`` lists name, type and length.
    """
    header = {**header, "arrays": [[name, _CODES[a.dtype], a.size] for name, a in arrays.items()]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    parts = [struct.pack("<I", len(text)), text, b"\0" * (-(4 + len(text)) % 8)]
    for array in arrays.values():
        data = np.ascontiguousarray(array).tobytes()
        parts += [data, b"\0" * (-len(data) % 8)]
    body = b"".join(parts)
    if any(array.dtype == np.uint8 for array in arrays.values()):  # label maps shrink a hundredfold
        return _compressed(request, body, "application/octet-stream")
    return Response(body, media_type="application/octet-stream")


def _compressed(request: Request, body: bytes, media_type: str) -> Response:
    headers = {"Vary": "Accept-Encoding"}
    if len(body) >= _COMPRESS_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=media_type, headers=headers)
