"""What to predict on: files, folders and globs, with a name for each image."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from segtrail.data.files import IMAGE_SUFFIXES, Exif, read_image
from segtrail.data.types import DataError


class Source(Protocol):
    """One image to predict on.

    Attributes:
        name: relative path without suffix, unique among the sources; outputs are named by it.
    """

    @property
    def name(self) -> str: ...

    def read(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB; raises DataError with one line if it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture on disk.

    Attributes:
        path: the file.
        name: see :class:`Source`.
        exif: whether the orientation tag turns the picture, see :data:`segtrail.data.files.Exif`.
    """

    path: Path
    name: str
    exif: Exif = "apply"

    def read(self) -> np.ndarray:
        """Decodes 8- and 16-bit, gray, palette, CMYK and transparent pictures as 8-bit RGB."""
        return read_image(self.path, exif=self.exif)


def find_sources(source: str | Sequence[str], exif: Exif = "apply") -> list[ImageFile]:
    """Images that a path means.

    Args:
        source: a file, a folder (with its subfolders), a glob, or a list of these.
        exif: see :class:`ImageFile`.

    Returns:
        The images in the order of the arguments and then of their paths, each once.

    Raises:
        DataError: nothing is found there.
    """
    entries = [source] if isinstance(source, str) else list(source)
    found: dict[Path, PurePosixPath] = {}  # file -> name with suffix
    for entry in entries:
        for path, name in _expand(entry):
            found.setdefault(path.resolve(), name)
    stems = Counter(name.with_suffix("") for name in found.values())
    full = Counter(found.values())
    files = []
    for position, (path, name) in enumerate(found.items()):
        unique = name.with_suffix("") if stems[name.with_suffix("")] == 1 else name
        if full[name] > 1:  # files of the same name from different places
            unique = PurePosixPath(f"{position:06d}-{name}")
        files.append(ImageFile(path, str(unique), exif))
    return files


def _expand(entry: str) -> list[tuple[Path, PurePosixPath]]:
    path = Path(entry).expanduser()
    if path.is_file():
        return [(path, PurePosixPath(path.name))]
    if path.is_dir():
        root, files = path, sorted(file for file in path.rglob("*") if file.is_file())
        missing = f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
    else:
        root = _fixed_part(path)
        files = sorted(file for file in root.glob(str(path.relative_to(root))) if file.is_file())
        missing = f"{entry}: no such file or folder, and no image matches it as a pattern"
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{missing}; give source=FILE, FOLDER or 'FOLDER/*.jpg'")
    return [(file, PurePosixPath(file.relative_to(root).as_posix())) for file in images]


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first part of a path that has a wildcard."""
    parents = [parent for parent in pattern.parents if not glob.has_magic(str(parent))]
    return parents[0]
