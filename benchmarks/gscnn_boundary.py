"""Gated-SCNN against DeepLabV3+ on the same encoder at an equal number of steps: boundary F-score.

    python benchmarks/gscnn_boundary.py              # satellite chips, 3 seeds
    python benchmarks/gscnn_boundary.py --quick      # a smoke run

Both see the same batches in the same order, with the same optimizer and cross-entropy; Gated-SCNN adds
its own terms at the paper's weights. Scores are those of the validation split after the last step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.data.datasets.earth import EarthDataset
from segtrail.metrics.boundary import BoundaryF
from segtrail.metrics.confusion import confusion_per_image, iou
from segtrail.models.base import SegmentationModel
from segtrail.models.gscnn import GatedSCNN
from segtrail.models.smp import SmpModel

TOLERANCES = (1, 2, 3)
CONF = Path(__file__).parents[1] / "conf" / "model"


def build(name: str, num_classes: int, encoder: str, width: int) -> SegmentationModel:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    config |= {"num_classes": num_classes, "encoder_name": encoder, "decoder_channels": width}
    if name == "gscnn":
        config |= {"ignore_index": 255, "shape_width": width // 2}
    del config["_target_"]
    return (GatedSCNN if name == "gscnn" else SmpModel)(**config)


def batch(
    model: SegmentationModel, samples: list, num_classes: int, flips: np.ndarray | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Normalized images, targets and what the model wants derived from them."""
    images, masks = [sample.image for sample in samples], [sample.mask for sample in samples]
    if flips is not None:
        for i, (up, left) in enumerate(flips):
            images[i], masks[i] = images[i][::up, ::left].copy(), masks[i][::up, ::left].copy()
    derived = {
        name: torch.from_numpy(
            np.stack([f(i, m, num_classes, 255) for i, m in zip(images, masks, strict=True)])
        )
        for name, f in model.derived.items()
    }
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
    image = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    return image, torch.from_numpy(np.stack(masks)).long(), derived


def train(
    name: str, seed: int, data: dict[str, list], num_classes: int, options: argparse.Namespace
) -> nn.Module:
    torch.manual_seed(seed)
    model = build(name, num_classes, options.encoder, options.width).to(memory_format=torch.channels_last)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, total_steps=options.steps)
    order = np.random.default_rng(seed)
    model.train()
    for _ in range(options.steps):
        chosen = order.choice(len(data["train"]), options.batch, replace=False)
        flips = order.choice((-1, 1), (options.batch, 2))
        image, target, derived = batch(model, [data["train"][i] for i in chosen], num_classes, flips)
        output = model(image, **derived)
        loss = F.cross_entropy(output.logits, target, ignore_index=255)
        loss = loss + sum(model.auxiliary_losses(output, target, F.cross_entropy, **derived).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def evaluate(model: nn.Module, samples: list, num_classes: int) -> list[float]:
    """mIoU, then the mean boundary F-score at each tolerance."""
    model.eval()
    metrics = [BoundaryF(num_classes, 255, tolerance) for tolerance in TOLERANCES]
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for start in range(0, len(samples), 8):
        image, target, derived = batch(model, samples[start : start + 8], num_classes)
        prediction = model(image, **derived).logits.argmax(1)
        confusion += confusion_per_image(prediction, target, num_classes, 255).sum(0)
        for metric in metrics:
            metric.update(prediction, target)
    return [iou(confusion).nanmean().item(), *(metric.compute().nanmean().item() for metric in metrics)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 steps of 2 images, one seed")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=64, help="of the decoders")
    parser.add_argument("--encoder", default="tu-mobilenetv3_small_100")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.batch, options.seeds = 2, 2, 1
    data = {}
    for split in ("train", "val"):
        dataset = EarthDataset(split)
        size = 4 if options.quick else len(dataset)
        data[split] = [dataset[i] for i in range(size)]
    num_classes = len(dataset.class_names)
    print(f"{options.encoder}, {options.steps} steps of {options.batch}, {len(data['val'])} validation chips")
    print(
        f"{'network':<10}{'seed':>5}{'CPU s':>8}{'mIoU':>8}" + "".join(f"{f'F@{t}px':>8}" for t in TOLERANCES)
    )
    scores: dict[str, list[list[float]]] = {"deeplab": [], "gscnn": []}
    for seed in range(options.seeds):
        for name, rows in scores.items():
            start = time.process_time()
            model = train(name, seed, data, num_classes, options)
            seconds = time.process_time() - start
            rows.append(evaluate(model, data["val"], num_classes))
            print(f"{name:<10}{seed:>5}{seconds:>8.0f}" + "".join(f"{v:>8.3f}" for v in rows[-1]), flush=True)
    for name, rows in scores.items():
        means = [statistics.mean(column) for column in zip(*rows, strict=True)]
        print(f"{name:<10}{'mean':>5}{'':>8}" + "".join(f"{v:>8.3f}" for v in means))


if __name__ == "__main__":
    main()
