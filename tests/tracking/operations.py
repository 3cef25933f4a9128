"""Reads an operation log the way a test needs it: whole, strict, in order of versions."""

import base64
import json
from pathlib import Path


def records(directory: Path) -> list[dict]:
    lines = [
        line
        for file in sorted(directory.glob("data-*.log"), key=lambda f: int(f.stem.partition("-")[2]))
        for line in file.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


def series(directory: Path, path: str) -> list[tuple[float, object]]:
    """(step, value) of every point, images as bytes."""
    points = []
    for record in records(directory):
        operation = record["obj"]
        if "/".join(operation["path"]) == path and operation["type"].startswith("Log"):
            for entry in operation["values"]:
                value = entry["value"]
                if operation["type"] == "LogImages":
                    value = base64.b64decode(value["data"])
                points.append((entry["step"], value))
    return points


def values(directory: Path) -> dict[str, object]:
    return {
        "/".join(r["obj"]["path"]): r["obj"]["value"]
        for r in records(directory)
        if r["obj"]["type"].startswith("Assign")
    }


def uploads(directory: Path) -> dict[str, bytes]:
    found = {}
    for record in records(directory):
        operation = record["obj"]
        if operation["type"] == "UploadFile":
            temporary = operation["tmp_file_name"]
            file = directory / "upload_path" / temporary if temporary else Path(operation["file_path"])
            found["/".join(operation["path"])] = file.read_bytes()
    return found
