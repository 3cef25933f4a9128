"""Mask R-CNN in segtrail against torchvision's plain reference loop: time of a step, AP for one budget.

    python benchmarks/mask_rcnn.py            # ms/step, interleaved, medians
    python benchmarks/mask_rcnn.py --train    # trains both on the same shapes, AP side by side
    python benchmarks/mask_rcnn.py --quick    # a smoke run of both

The plain loop is that of torchvision's references/detection: images and targets as float and uint8 tensors,
``MaskRCNN(images, targets)``, sum of the losses, backward, optimizer and scheduler step; torchvision's own
model class, AdamW and one-cycle schedule as in the recipe, evaluation by pycocotools. Same network, data,
augmentation, batch size, seed of the weights and number of steps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.transforms.v2 import functional as F

import segtrail
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.models.mask_rcnn_backbones import ResNetFPN


class PlainDataset(Dataset[Any]):
    """Shapes as torchvision's reference wants them, flipped at random."""

    def __init__(self, split: str, count: int, train: bool) -> None:
        self.shapes = ShapesDataset(split, num_samples=count, instances=True)
        self.train = train

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        sample = self.shapes[index]
        objects = sample.instances
        assert objects is not None
        image = F.to_dtype(torch.from_numpy(sample.image).permute(2, 0, 1), torch.float32, scale=True)
        masks, boxes = torch.from_numpy(objects.masks).to(torch.uint8), torch.from_numpy(objects.boxes)
        if self.train and torch.rand(()) < 0.5:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes = torch.stack([96 - boxes[:, 2], boxes[:, 1], 96 - boxes[:, 0], boxes[:, 3]], 1)
        return image, {"boxes": boxes, "labels": torch.from_numpy(objects.labels) + 1, "masks": masks}


def plain_loader(split: str, count: int, batch_size: int, train: bool) -> DataLoader[Any]:
    return DataLoader(
        PlainDataset(split, count, train),
        batch_size,
        shuffle=train,
        drop_last=train,
        collate_fn=lambda items: tuple(zip(*items, strict=True)),
    )


def plain_model(config: Any) -> TorchvisionMaskRCNN:
    """The light network, put together from torchvision's classes."""
    model, classes = config.model, len(config.class_names) + 1
    backbone = ResNetFPN(model.backbone.name, norm="batch", out_channels=model.backbone.out_channels)
    keys = [key for key in model if key.startswith(("rpn_", "box_", "min_", "max_")) and key != "rpn_convs"]
    options = {key: model[key] for key in keys if key not in ("box_convs", "box_features", "box_loss")}
    channels = model.backbone.out_channels
    return TorchvisionMaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in model.anchor_sizes),
            (tuple(model.anchor_ratios),) * len(model.anchor_sizes),
        ),
        box_head=TwoMLPHead(channels * 49, model.box_features),
        box_predictor=FastRCNNPredictor(model.box_features, classes),
        mask_head=MaskRCNNHeads(channels, [model.mask_channels] * model.mask_convs, 1),
        mask_predictor=MaskRCNNPredictor(model.mask_channels, model.mask_channels, classes),
        **options,
    )


def plain_steps(
    model: TorchvisionMaskRCNN, loader: DataLoader[Any], steps: int, lr: float
) -> Iterator[float]:
    """Trains and yields the loss of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.3)
    model.train()
    done = 0
    while done < steps:
        for images, targets in loader:
            losses = model(list(images), [dict(target) for target in targets])
            loss = sum(losses.values())
            value = float(loss.detach())  # the reference logs and checks every loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            done += 1
            yield value
            if done == steps:
                return


def plain_ap(model: TorchvisionMaskRCNN, count: int) -> tuple[float, float]:
    """Mask AP and AP50 by pycocotools."""
    dataset = PlainDataset("val", count, train=False)
    images, annotations, results = [], [], []
    model.eval()
    for number in range(1, count + 1):
        image, target = dataset[number - 1]
        images.append({"id": number, "height": 96, "width": 96})
        for mask, label in zip(target["masks"].numpy(), target["labels"].tolist(), strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "iscrowd": 0,
                    "area": float(mask.sum()),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "segmentation": rle,
                }
            )
        with torch.no_grad():
            found = model([image])[0]
        for mask, label, score in zip(found["masks"], found["labels"], found["scores"], strict=True):
            rle = coco_mask.encode(np.asfortranarray((mask[0] >= 0.5).numpy().astype(np.uint8)))
            results.append(
                {"image_id": number, "category_id": int(label), "score": float(score), "segmentation": rle}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": index} for index in range(1, 6)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


Seconds = np.ndarray
"""Wall-clock and CPU seconds; the latter mean something on a shared machine too."""


def seconds() -> Seconds:
    return np.array([time.perf_counter(), time.process_time()])


class Clock(pl.Callback):
    """Time between the ends of training batches, loading included."""

    def __init__(self) -> None:
        self.steps: list[Seconds] = []
        self._before: Seconds | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        now = seconds()
        if self._before is not None:
            self.steps.append(now - self._before)
        self._before = now


def experiment(*overrides: str) -> tuple[Any, Any, Any]:
    config = segtrail.compose(
        [
            "experiment=mask_rcnn_shapes",
            "tracker=none",
            "callbacks=none",
            "callbacks.prediction_images=null",
            "augmentation=none",
            "run_dir=outputs/benchmark",
            "loader.num_workers=0",
            "+augmentation.train=[{_target_: albumentations.HorizontalFlip, p: 0.5}]",
            *overrides,
        ]
    )
    built = segtrail.build(config)
    return config, built.module, built.datamodule


def ours(module: Any, datamodule: Any, steps: int) -> list[Seconds]:
    """Trains for so many steps and returns the time of each but the first."""
    clock = Clock()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=datamodule)
    return clock.steps


def speed(rounds: int, steps: int) -> None:
    config, module, datamodule = experiment()
    model, loader = plain_model(config), plain_loader("train", 512, config.loader.batch_size, True)
    ours(module, datamodule, 6), list(plain_steps(model, loader, 6, 1e-4))  # warm up
    times: dict[str, list[Seconds]] = {"segtrail": [], "plain": []}
    for _ in range(rounds):
        times["segtrail"] += ours(module, datamodule, steps + 1)
        before = None
        for _loss in plain_steps(model, loader, steps + 1, 1e-4):
            now = seconds()
            if before is not None:
                times["plain"].append(now - before)
            before = now
    medians = {name: 1000 * np.median(values, axis=0) for name, values in times.items()}
    threads = torch.get_num_threads()
    print(f"{len(times['plain'])} steps each, batch {config.loader.batch_size}, {threads} threads")
    for name, (wall, cpu) in medians.items():
        print(f"{name:10s} {wall:8.1f} ms/step  {cpu:8.1f} CPU-ms/step")
    wall, cpu = medians["plain"] / medians["segtrail"]
    print(f"ratio plain / segtrail: {wall:.3f} by the wall clock, {cpu:.3f} by CPU time")


def train(epochs: int, count: int, validation: int) -> None:
    config, module, datamodule = experiment(
        f"trainer.max_epochs={epochs}", f"dataset.num_samples={{train: {count}, val: {validation}, test: 8}}"
    )
    steps = epochs * (count // config.loader.batch_size)
    torch.manual_seed(0)
    plain = plain_model(config)
    module.model.load_state_dict(plain.state_dict())
    start = seconds()
    for _ in plain_steps(plain, plain_loader("train", count, config.loader.batch_size, True), steps, 1e-3):
        pass
    report("plain", *plain_ap(plain, validation), seconds() - start)
    start = seconds()
    ours(module, datamodule, steps)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, use_distributed_sampler=False
    )
    figures = trainer.validate(module, datamodule=datamodule, verbose=False)[0]
    report("segtrail", figures["val/mask_mAP"], figures["val/mask_AP50"], seconds() - start)


def report(name: str, ap: float, ap50: float, spent: Seconds) -> None:
    print(f"{name:10s} mask AP {ap:.3f}  AP50 {ap50:.3f}  {spent[0]:.0f} s  {spent[1]:.0f} CPU-s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train both and compare AP")
    parser.add_argument("--quick", action="store_true", help="a few steps of each")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    Path("outputs/benchmark").mkdir(parents=True, exist_ok=True)
    if chosen.train or chosen.quick:
        train(*((1, 48, 4) if chosen.quick else (6, 512, 64)))
    if not chosen.train:
        speed(*((1, 5) if chosen.quick else (6, 8)))


if __name__ == "__main__":
    main()
