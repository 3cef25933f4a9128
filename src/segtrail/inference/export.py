"""``segtrail export``: a checkpoint as an ONNX or torch.export file that takes raw images."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segtrail.inference.predictor import class_probabilities
from segtrail.models.base import SegmentationModel
from segtrail.training.checkpoint import load_run
from segtrail.training.normalize import Normalize

RESULTS = ("logits", "probabilities", "classes")


class ExportError(Exception):
    """A model that cannot be exported as asked; one line that says why and what to do."""


class RawImageModel(nn.Module):
    """A model with its normalization inside.

    Args:
        model: takes normalized images.
        result: ``logits`` (B, C, H, W), ``probabilities`` (B, K, H, W) or ``classes`` (B, H, W) int64.
        padded: whether images of any size are padded to the model's divisor; without, they must be
            multiples of it.
    """

    def __init__(self, model: SegmentationModel, result: str, padded: bool) -> None:
        super().__init__()
        self.model = model
        self.normalize = Normalize(model.mean, model.std)
        self.result = result
        self.padded = padded

    def forward(self, image: Tensor, *derived: Tensor) -> Tensor:
        """Segments (B, 3, H, W) uint8 RGB images, with the derived arrays that the model asks for."""
        run = self.model if self.padded else self.model.segment
        logits = run(self.normalize(image), **dict(zip(self.model.derived, derived, strict=True))).logits
        if self.result == "logits":
            return logits
        probabilities = class_probabilities(logits)
        return probabilities if self.result == "probabilities" else probabilities.argmax(1)


def export_program(
    model: SegmentationModel, num_classes: int, result: str = "logits", size: tuple[int, int] | None = None
) -> tuple[ExportedProgram, int]:
    """Captures a model with torch.export, for any batch size.

    Args:
        model: in eval mode, on the CPU.
        num_classes: K of the dataset, for the model's derived inputs.
        result: see :class:`RawImageModel`.
        size: the height and width that the program will take; None for all that it can.

    Returns:
        The program, and the number that its heights and widths must be multiples of (0: of one size).

    Raises:
        ExportError: the model cannot be captured so.
    """
    if size is not None:
        inputs = example_inputs(model, num_classes, *size)
        return _capture(RawImageModel(model, result, padded=True), inputs, None), 0
    units = sorted({model.size_divisor, math.lcm(model.size_divisor, 32)})
    for unit in units:
        smallest = math.ceil(max(model.min_size, model.stride, 2 * unit) / unit)
        side = math.ceil(max(96, smallest * unit) / unit)
        inputs = example_inputs(model, num_classes, (side + 1) * unit, (side + 2) * unit)
        sides = {axis: unit * Dim(name, min=smallest) for axis, name in ((-2, "rows"), (-1, "columns"))}
        try:
            return _capture(RawImageModel(model, result, padded=False), inputs, sides), unit
        except ExportError as error:
            failure = error
    raise ExportError(f"{failure}; it may be exportable for one size: --size HEIGHT WIDTH")


def _capture(wrapped: RawImageModel, inputs: tuple[Tensor, ...], sides: Any) -> ExportedProgram:
    batch = Dim("batch", min=1)

    def dynamic(array: Tensor) -> dict[int, Any]:
        rank = array.ndim
        return {0: batch} | {rank + axis: side for axis, side in (sides or {}).items()}

    first, *rest = (dynamic(array) for array in inputs)
    shapes = (first, tuple(rest)) if rest else (first,)
    try:
        with quiet():
            return torch.export.export(wrapped.eval(), inputs, dynamic_shapes=shapes)
    except Exception as error:  # the exporter raises whatever the model's code meets
        name = type(wrapped.model).__name__
        raise ExportError(f"torch.export cannot capture {name}: {str(error).splitlines()[0]}") from error


def example_inputs(
    model: SegmentationModel, num_classes: int, height: int, width: int, batch: int = 2
) -> tuple[Tensor, ...]:
    """Random uint8 images (B, 3, H, W), and the derived arrays of them that the model asks for."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (batch, height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    images = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    mask = np.zeros((height, width), np.uint8)
    derived = [
        torch.from_numpy(np.stack([derive(image, mask, num_classes, 255) for image in images]))
        for derive in model.derived.values()
    ]
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), *derived


def save_onnx(
    program: ExportedProgram, names: Sequence[str], result: str, path: Path, facts: dict[str, str]
) -> None:
    """Writes an ONNX file.

    Args:
        program: as :func:`export_program` made it.
        names: of its inputs.
        result: name of its output.
        path: the file.
        facts: kept as the file's metadata.

    Raises:
        ExportError: the packages of the extra ``export`` are missing, or an operator has no ONNX form.
    """
    try:
        with quiet():
            onnx_program: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=list(names), output_names=[result]
            )
    except ModuleNotFoundError as error:
        raise ExportError(f"ONNX needs the package {error.name}: pip install 'segtrail[export]'") from error
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{path}: {str(error).splitlines()[0]}") from error
    onnx_program.model.metadata_props.update(facts)
    onnx_program.save(path)


def run_onnx(path: Path, inputs: Sequence[Tensor]) -> Tensor:
    """Runs an ONNX file on the CPU.

    Raises:
        ExportError: onnxruntime refuses it.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # what it would print comes as an exception too
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        (found,) = session.run(None, dict(zip(names, (array.numpy() for array in inputs), strict=True)))
    except Exception as error:  # its exceptions share no base class
        raise ExportError(f"{path}: onnxruntime cannot run it ({str(error).splitlines()[0]})") from error
    return torch.from_numpy(found)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps back the exporters' own progress and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def main(argv: list[str]) -> int:
    """Exports a checkpoint, checks the files against torch and says what they take."""
    parser = argparse.ArgumentParser(prog="segtrail export", description=__doc__)
    parser.add_argument("checkpoint", help="file, run folder, id of a tracked run, or 'last'")
    parser.add_argument(
        "--output",
        nargs="+",
        type=Path,
        default=[Path("model.onnx")],
        metavar="FILE",
        help="FILE.onnx, FILE.pt2",
    )
    parser.add_argument("--result", choices=RESULTS, default="logits", help="what the file computes")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="take this size only, whatever it is"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference to torch accepted")
    arguments = parser.parse_args(argv)
    for path in arguments.output:
        if path.suffix not in (".onnx", ".pt2"):
            raise ExportError(f"{path}: name the file .onnx (ONNX) or .pt2 (torch.export)")
    loaded = load_run(arguments.checkpoint)
    model, num_classes = loaded.module.model.cpu().eval(), loaded.config.num_classes
    program, unit = export_program(model, num_classes, arguments.result, arguments.size)
    facts = {
        "class_names": json.dumps(list(loaded.module.class_names)),
        "palette": json.dumps(np.asarray(loaded.module.palette).tolist()),
    }
    for path in arguments.output:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".onnx":
            save_onnx(program, ["image", *model.derived], arguments.result, path, facts)
        else:
            torch.export.save(program, path, extra_files=facts)
        try:
            difference = check(path, model, num_classes, arguments.result, arguments.size, unit)
        except ExportError as error:
            path.unlink()
            hint = "" if arguments.size else "; one size may work: --size HEIGHT WIDTH"
            raise ExportError(f"{error}{hint}") from error
        if difference > arguments.tolerance:
            raise ExportError(
                f"{path}: differs from torch by {difference:.1e}, more than {arguments.tolerance:g}"
            )
        height, width = arguments.size or ("H", "W")
        sides = f", H and W multiples of {unit}" if unit > 1 else ""
        print(f"{path}: image (B, 3, {height}, {width}) uint8{sides} -> {arguments.result}")
        print(f"{path}: equals torch to {difference:.1e}")
    return 0


@torch.no_grad()
def check(
    path: Path,
    model: SegmentationModel,
    num_classes: int,
    result: str,
    size: tuple[int, int] | None,
    unit: int,
) -> float:
    """Largest difference between an exported file and the model in torch, at sizes unlike the example's.

    For ``classes`` it is the share of pixels that differ.
    """
    reference = RawImageModel(model, result, padded=True)
    largest = 0.0
    side = math.ceil(max(model.min_size, 64) / max(1, unit))
    for height, width in (
        [size] if size else [(side * unit, (side + 3) * unit), ((side + 2) * unit, side * unit)]
    ):
        inputs = example_inputs(model, num_classes, height, width, batch=1)
        if path.suffix == ".onnx":
            found = run_onnx(path, inputs)
        else:
            found = torch.export.load(path).module()(*inputs)
        expected = reference(*inputs)
        wrong = (found != expected).float().mean() if result == "classes" else (found - expected).abs().max()
        largest = max(largest, wrong.item())
    return largest
