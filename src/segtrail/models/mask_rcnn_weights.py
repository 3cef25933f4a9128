"""Published and local weights of Mask R-CNN, also for other classes than they were trained on."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)
from torchvision.ops import FrozenBatchNorm2d

log = logging.getLogger(__name__)

PUBLISHED = {
    "coco": MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    "coco_v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}
COCO_NAMES: tuple[str, ...] = tuple(PUBLISHED["coco"].meta["categories"])
"""The 91 outputs of the published files, with background first and the ids that COCO never used."""

PREDICTORS = (  # one row a class, but for the boxes' four
    "roi_heads.box_predictor.cls_score",
    "roi_heads.box_predictor.bbox_pred",
    "roi_heads.mask_predictor.mask_fcn_logits",
)


def load_weights(model: nn.Module, weights: str, names: Sequence[str]) -> None:
    """Loads a published or local state dict; every tensor but the predictors' must fit.

    Predictors of other class counts keep the rows of classes whose names both sides share (if the
    file has COCO's 91 outputs) and start anew for the others; a warning says which.

    Args:
        model: a network with torchvision's parameter names.
        weights: ``coco`` or ``coco_v2`` (downloaded once), or a local file: a state dict, alone or
            under ``model`` or ``state_dict``, there possibly prefixed ``model.``.
        names: the model's outputs in order, background first.

    Raises:
        ValueError: in one line, if the file is missing, unreadable or for another network.
    """
    state = _read(weights)
    if any(".mask_fcn1." in name for name in state):  # converted from Detectron, which divides by sqrt(var)
        for part in model.modules():
            if isinstance(part, FrozenBatchNorm2d):
                part.eps = 0.0
    own = model.state_dict()
    rows = {name: state[name] for layer in PREDICTORS for name in _tensors_of(layer) if name in state}
    left_out: list[str] = []
    outputs = len(rows.get(f"{PREDICTORS[0]}.bias", ()))
    source = COCO_NAMES if outputs == len(COCO_NAMES) else None
    if outputs and (outputs != len(names) or (source is not None and tuple(names) != source)):
        known = dict(zip(source, range(outputs), strict=True)) if source else {}
        known.pop("N/A", None)
        shared = {row: known[name] for row, name in enumerate(names) if name in known}
        left_out = [name for name in names if name not in known]
        for name, tensor in rows.items():
            state[name] = _mix(own[name], tensor, shared, len(names), outputs)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(
            f"weights {weights} are for another network: {str(error).splitlines()[-1].strip()}"
        ) from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in unexpected if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        example = f"it lacks {missing[0]}" if missing else f"it has {unexpected[0]}"
        raise ValueError(
            f"weights {weights} are for another network: {len(missing)} tensors missing, "
            f"{len(unexpected)} unknown ({example}); choose the model=mask_rcnn... that the file is for"
        )
    if left_out:
        kept = f"kept for {len(names) - len(left_out)} classes" if len(left_out) < len(names) else "none kept"
        log.warning(
            "weights %s have %d outputs, the model %d: predictors start anew for %s (%s); all else is loaded",
            weights,
            outputs,
            len(names),
            ", ".join(left_out),
            kept,
        )


def _tensors_of(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"


def _mix(own: Tensor, theirs: Tensor, shared: dict[int, int], ours: int, outputs: int) -> Tensor:
    """Returns our rows, with those of shared classes replaced."""
    mixed = own.clone().unflatten(0, (ours, -1))
    theirs = theirs.unflatten(0, (outputs, -1))
    if mixed.shape[1:] != theirs.shape[1:]:
        return theirs.flatten(0, 1)  # another width: loading names the tensor
    for row, source in shared.items():
        mixed[row] = theirs[source]
    return mixed.flatten(0, 1)


def _read(weights: str) -> dict[str, Tensor]:
    if weights in PUBLISHED:
        try:
            return dict(PUBLISHED[weights].get_state_dict(progress=False, check_hash=True))
        except OSError as error:
            url = PUBLISHED[weights].url
            raise ValueError(
                f"cannot download weights {weights!r} ({error}); give the file of {url} as model.weights"
            ) from None
    if not Path(weights).is_file():
        raise ValueError(f"model.weights={weights!r} is no file and none of {', '.join(PUBLISHED)}")
    try:
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"model.weights={weights} is not a file of tensors: {reason[:120]}") from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"model.weights={weights} holds a {type(content).__name__}, not a state dict")
    prefix = "model."
    network = {name[len(prefix) :]: value for name, value in content.items() if name.startswith(prefix)}
    return network or dict(content)
