"""Get a public data set where its license and host allow it, or say how to.

    python scripts/prepare_dataset.py voc /data            # then: train.py dataset=voc dataset.root=/data
    python scripts/prepare_dataset.py cityscapes /data     # prints what to do: it needs an account

An interrupted download goes on where it stopped. Archives are checked against the published checksums,
unpacked once, and kept (``--remove-archives`` frees their room).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from segtrail.data.download import Archive, fetch, need_room, unpack
from segtrail.data.tables import table
from segtrail.data.types import DataError

TERMS = {
    "coco": "Annotations: CC BY 4.0. The images belong to Flickr users, under the license each names.",
    "coco_panoptic": "Annotations: CC BY 4.0.",
    "coco_stuff": "Annotations: CC BY 4.0.",
    "voc": "The images are subject to the Flickr terms of use; for research.",
    "voc2007": "The images are subject to the Flickr terms of use; for research.",
    "sbd": "The images are those of PASCAL VOC; for research.",
    "camvid": "For research; cite Brostow et al. 2008 (ECCV) and 2009 (Pattern Recognition Letters).",
}

INSTRUCTIONS = {
    "cityscapes": """Cityscapes needs an account and may not be passed on, so it cannot be fetched for you:
  1. register at https://www.cityscapes-dataset.com (non-commercial use)
  2. pip install cityscapesscripts, then
     csDownload -d {root} gtFine_trainvaltest.zip leftImg8bit_trainvaltest.zip
  3. unpack both archives in {root}, so that {root}/leftImg8bit and {root}/gtFine exist
  4. python train.py dataset=cityscapes dataset.root={root}""",
}


def main() -> int:
    """Fetch and unpack; 0 if all is there, 1 if not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted({*TERMS, *INSTRUCTIONS}))
    parser.add_argument("root", type=Path, help="folder for the data")
    parser.add_argument("--remove-archives", action="store_true", help="after unpacking")
    options = parser.parse_args()
    root = options.root.expanduser()
    if options.name in INSTRUCTIONS:
        print(INSTRUCTIONS[options.name].format(root=root))
        return 0
    print(TERMS[options.name])
    archives = [Archive(**row) for row in table("downloads")[options.name]]
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Archive and content are on the disk at once.
        need_room(
            root, 2 * sum(archive.bytes or 0 for archive in archives if not (root / archive.name).exists())
        )
        for archive in archives:
            _prepare(archive, root, options.remove_archives)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"ready in {root}")
    return 0


def _prepare(archive: Archive, root: Path, remove: bool) -> None:
    target = root / archive.into
    if (target / f".{archive.name}.unpacked").is_file():
        print(f"{archive.name}: unpacked before")
        return
    with Progress("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(archive.name, total=archive.bytes)
        path = fetch(archive, root, lambda done, total: bar.update(task, completed=done, total=total))
    print(f"{archive.name}: unpacking")
    unpack(path, target)
    for inner in sorted(target.glob("annotations/panoptic_*2017.zip")):  # COCO packs the PNGs once more
        unpack(inner, inner.parent)
    if remove:
        path.unlink()


if __name__ == "__main__":
    sys.exit(main())
