"""A model, a module and data small enough that a fit takes a tenth of a second."""

from dataclasses import dataclass, field

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from segtrail.metrics.confusion import SegmentationConfusion

PALETTE = np.array([[0, 0, 128], [0, 160, 0], [200, 200, 200]], np.uint8)
VOID = 255


@dataclass
class Source:
    ids: list[str]
    ignore_index: int = VOID


@dataclass
class Samples(Dataset):
    """Photographs of noise; sample i is i rows smaller than the batch that it is padded to."""

    size: int = 6
    dataset: Source = field(init=False)

    def __post_init__(self):
        self.dataset = Source([f"part/{i:02d}" for i in range(self.size)])

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (3, 16, 12), dtype=np.uint8)
        mask = rng.integers(0, 3, (16, 12)).astype(np.int64)
        mask[0] = VOID
        mask[16 - index % 3 :] = VOID
        return {"image": image, "mask": mask, "id": self.dataset.ids[index], "index": index}


def collate(items):
    return {
        "image": torch.tensor(np.stack([item["image"] for item in items])),
        "mask": torch.tensor(np.stack([item["mask"] for item in items])),
        "ids": [item["id"] for item in items],
        "indices": torch.tensor([item["index"] for item in items]),
        "sizes": torch.tensor([[16 - item["index"] % 3, 12] for item in items]),
    }


def loader(size=6, **options):
    return DataLoader(Samples(size), batch_size=2, collate_fn=collate, **options)


class Net(nn.Module):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, image):
        return self.head(self.norm(self.conv(image)).relu())


class Module(pl.LightningModule):
    class_names = ("sea", "land", "ice")
    palette = PALETTE
    ignore_index = VOID
    config_yaml = "seed: 3\nmodel: {_target_: tests.Net, encoder: {name: none}}\ntags: [toy]\n"

    def __init__(self, rate=0.1):
        super().__init__()
        self.model = Net()
        self.rate = rate
        self.confusion = SegmentationConfusion(3, VOID)
        self.seen = {}

    def evaluation(self, split):
        return self.confusion

    def probabilities(self, logits):
        return logits.float().softmax(1)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (Net.mean, Net.std))
        return {**batch, "image": (batch["image"].float() / 255 - mean) / std}

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.model(batch["image"]), batch["mask"], ignore_index=VOID)
        for logger in self.loggers:
            logger.log_metrics({"train/loss": loss.item()}, step=self.global_step)
        return loss

    def on_validation_epoch_start(self):
        self.confusion.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch, batch_idx):
        logits = self.model(batch["image"])
        prediction = logits.argmax(1)
        self.confusion.update(prediction, batch["mask"], batch["indices"])
        for row, name in enumerate(batch["ids"]):
            self.seen[name] = prediction[row].numpy()
        return {"logits": logits, "prediction": prediction}

    test_step = validation_step

    def on_validation_epoch_end(self):
        total = self.confusion.compute().double()
        self.log("val/mIoU", float(total.diagonal().sum() / total.sum()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate, momentum=0.9)


def trainer(callbacks=(), logger=False, **options):
    settings = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), logger=logger, **(settings | options))
