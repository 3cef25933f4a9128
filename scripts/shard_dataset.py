"""Write a data set as shards for an object store.

    python scripts/shard_dataset.py /data/voc-shards dataset=voc dataset.root=/data
    aws s3 sync /data/voc-shards s3://bucket/voc            # or gsutil, azcopy
    python train.py dataset=streamed dataset.url=s3://bucket/voc

Pictures stay the JPEG or PNG files that they are; masks become PNG with class ids, so that training reads
exactly what it would read from the original.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from litdata.streaming import Cache
from rich.progress import track

import segtrail
from segtrail.data.commands import plain
from segtrail.data.datasets.base import SegmentationDataset
from segtrail.data.datasets.nested import arguments_of, class_of
from segtrail.data.datasets.streamed import FACTS, pack
from segtrail.data.types import DataError


def main() -> int:
    """Write every split; 0 if all is written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="new folder")
    parser.add_argument("override", nargs="+", help="as for training: dataset=voc dataset.root=/data")
    parser.add_argument("--megabytes", type=int, default=64, help="size of a shard")
    options = parser.parse_args()
    try:
        if options.output.exists():
            raise DataError(f"{options.output}: exists already; choose a new folder")
        node = plain(segtrail.compose(options.override).dataset)
        make = partial(class_of(node), **arguments_of(node) | {"instances": True, "cache": False})
        facts = {"splits": {}}
        for split in class_of(node).splits(**arguments_of(node)):
            dataset = make(split=split)
            write(dataset, options.output / split, options.megabytes)
            facts |= {"class_names": list(dataset.class_names), "palette": dataset.palette.tolist()}
            facts["splits"][split] = dataset.ids
        (options.output / FACTS).write_text(json.dumps(facts))
    except (DataError, segtrail.ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write(dataset: SegmentationDataset, folder: Path, megabytes: int) -> None:
    """One split as litdata shards."""
    folder.mkdir(parents=True)
    shards = Cache(str(folder), chunk_bytes=megabytes * 1_000_000)
    for index in track(range(len(dataset)), f"{dataset.split}"):
        files = dataset.sources(dataset.records[index])
        keep = files and dataset.exif == "ignore" and files[0].suffix.lower() in (".jpg", ".jpeg", ".png")
        image = files[0].read_bytes() if keep else None
        # An array: litdata lays out plain bytes so that single samples cannot be fetched.
        shards[index] = pack(dataset.read(index), image, dataset.ignore_index, len(dataset.class_names))
    shards.done()
    shards.merge()


if __name__ == "__main__":
    sys.exit(main())
