"""``segtrail models``: the architectures with their size, work, stride and speed on this machine."""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from segtrail.models.base import SegmentationModel


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        name: of its YAML file.
        encoder: its encoder, or a dash.
        parameters: number of parameters.
        macs: multiply-accumulates of one image.
        stride: of the encoder's last map.
        images_per_second: forward passes, or None if not measured.
    """

    name: str
    encoder: str
    parameters: int
    macs: float
    stride: int
    images_per_second: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="segtrail models", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names in conf/model (all)")
    parser.add_argument("--encoder", help="put every architecture on this encoder")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (256)")
    parser.add_argument("--classes", type=int, default=21, help="number of classes (21)")
    parser.add_argument("--batch", type=int, default=1, help="images at once when measuring speed (1)")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes; 0: do not measure (3)")
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    options = parser.parse_args(argv)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    configs = model_configs(options.classes)
    unknown = [name for name in options.names if name not in configs]
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are {', '.join(configs)}")
    print_table(options, device, {name: configs[name] for name in options.names or configs})
    return 0


def print_table(options: argparse.Namespace, device: torch.device, configs: dict[str, DictConfig]) -> None:
    from rich.console import Console
    from rich.table import Table

    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    table = Table(title=f"{options.size} x {options.size}, {options.classes} classes; speed on {name}")
    for column in ("model", "encoder"):
        table.add_column(column, no_wrap=True)
    for column in ("parameters", "GMAC", "stride", "images/s"):
        table.add_column(column, justify="right")
    misfits = []
    for name, config in configs.items():
        if options.encoder and "encoder_name" in config:
            config.encoder_name = options.encoder
        try:
            row = measure(name, config, options.size, options.batch, options.repeats, device)
        except ValueError as error:  # an encoder that does not fit this architecture
            misfits.append(f"{name}: {error}")
            continue
        speed = "-" if row.images_per_second is None else f"{row.images_per_second:.1f}"
        table.add_row(
            row.name,
            row.encoder,
            f"{row.parameters / 1e6:.2f} M",
            f"{row.macs / 1e9:.2f}",
            str(row.stride),
            speed,
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    for line in misfits:
        print(line)


def model_configs(num_classes: int) -> dict[str, DictConfig]:
    """The semantic architectures in conf/model, by name, without downloading weights."""
    from segtrail.config.compose import config_folder

    configs: dict[str, DictConfig] = {}
    for file in sorted((config_folder() / "model").glob("*.yaml")):
        config = OmegaConf.load(file)
        if not isinstance(config, DictConfig) or not _is_semantic(config.get("_target_")):
            continue
        known = {"num_classes": num_classes, "ignore_index": 255}
        resolved = OmegaConf.create({**known, "model": config})
        OmegaConf.resolve(resolved)
        if "encoder_weights" in resolved.model:
            resolved.model.encoder_weights = "none"
        configs[Path(file).stem] = resolved.model
    return configs


def _is_semantic(target: str | None) -> bool:
    if target is None or not target.startswith("segtrail.models."):
        return False
    found = _locate(target)
    return inspect.isclass(found) and issubclass(found, SegmentationModel)


def _locate(target: str) -> Any:
    from importlib import import_module

    module, name = target.rsplit(".", 1)
    return getattr(import_module(module), name)


def measure(name: str, config: DictConfig, size: int, batch: int, repeats: int, device: torch.device) -> Row:
    """Builds a model from its config and measures it in evaluation mode."""
    arguments: Any = OmegaConf.to_container(config)
    model: SegmentationModel = _locate(arguments.pop("_target_"))(**arguments).eval()
    return Row(
        name=name,
        encoder=arguments.get("encoder_name", "-"),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=count_macs(model, size),
        stride=model.output_stride,
        images_per_second=speed(model.to(device), size, batch, repeats, device) if repeats else None,
    )


def count_macs(model: SegmentationModel, size: int) -> float:
    """Multiply-accumulates of one image in the model's current mode; nothing is computed."""
    derived = {name: torch.zeros(1, size, size) for name in model.derived}
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size), **derived)
    return counter.get_total_flops() / 2


def speed(model: SegmentationModel, size: int, batch: int, repeats: int, device: torch.device) -> float:
    """Images per second, the median of ``repeats`` passes after one that warms up."""
    image = torch.randn(batch, 3, size, size, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return batch / statistics.median(seconds[1:])
