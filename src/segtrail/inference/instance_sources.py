"""What to look for objects in: images, folders, globs, addresses and videos."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segtrail.data.files import Exif
from segtrail.data.types import DataError
from segtrail.inference.sources import ImageFile, find_sources

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"})


@dataclass(frozen=True, slots=True)
class Video:
    """A video file.

    Attributes:
        path: the file.
        name: outputs are named by it.
        every: take every so many frames.
    """

    path: Path
    name: str
    every: int = 1

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the number of each frame taken, and the frame, (H, W, 3) uint8 RGB.

        Raises:
            DataError: the file cannot be decoded.
        """
        capture = cv2.VideoCapture(str(self.path))
        try:
            number = 0
            while capture.grab():
                if number % self.every == 0:
                    decoded, frame = capture.retrieve()
                    if not decoded:
                        raise DataError(f"{self.path}: frame {number} cannot be decoded; convert the video")
                    yield number, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                number += 1
        finally:
            capture.release()
        if number == 0:
            raise DataError(f"{self.path}: OpenCV finds no frame in this video; convert it to MP4 (H.264)")

    @property
    def rate(self) -> float:
        """Frames taken per second."""
        capture = cv2.VideoCapture(str(self.path))
        rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        capture.release()
        return float(rate) / self.every


def find_media(
    source: str | Sequence[str], downloads: Path, exif: Exif = "apply", every: int = 1
) -> list[ImageFile | Video]:
    """Images and videos that a source means.

    Args:
        source: a file, a folder, a glob, an http(s) address, or a list of these. Folders and globs give
            images and videos.
        downloads: where files from addresses are kept.
        exif: whether the orientation tag turns photographs.
        every: take every so many frames of a video.

    Raises:
        DataError: nothing is found, or an address cannot be fetched.
    """
    entries = [source] if isinstance(source, str) else list(source)
    entries = [
        str(fetch(entry, downloads)) if entry.startswith(("http://", "https://")) else entry
        for entry in entries
    ]
    media: list[ImageFile | Video] = []
    for entry in entries:
        videos = _videos(entry, every)
        media += videos
        if videos and Path(entry).expanduser().is_file():
            continue
        try:
            media += find_sources(entry, exif)
        except DataError:
            if not videos:
                raise
    return _unique(media)


def _videos(entry: str, every: int) -> list[Video]:
    path = Path(entry).expanduser()
    if path.is_file():
        candidates = [path]
    elif path.is_dir():
        candidates = sorted(path.rglob("*"))
    else:
        candidates = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    found = [file for file in candidates if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()]
    root = path if path.is_dir() else None
    return [
        Video(file, (file.relative_to(root) if root else Path(file.name)).with_suffix("").as_posix(), every)
        for file in found
    ]


def _unique(media: list[ImageFile | Video]) -> list[ImageFile | Video]:
    """Gives items of the same name a number."""
    seen: set[str] = set()
    unique: list[ImageFile | Video] = []
    for position, item in enumerate(media):
        name = item.name if item.name not in seen else f"{position:06d}-{item.name}"
        seen.add(name)
        if isinstance(item, Video):
            unique.append(Video(item.path, name, item.every))
        else:
            unique.append(ImageFile(item.path, name, item.exif))
    return unique


def fetch(address: str, folder: Path, timeout: float = 30.0) -> Path:
    """Downloads a file and returns its path; its name is the address's last part.

    Raises:
        DataError: the address cannot be fetched.
    """
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).name or "download"
    request = urllib.request.Request(address, headers={"User-Agent": "segtrail"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            data, kind = answer.read(), answer.headers.get_content_subtype()
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{address}: cannot be fetched ({reason})") from error
    if not Path(name).suffix:  # many addresses tell the format in the header alone
        name = f"{name}.{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path
