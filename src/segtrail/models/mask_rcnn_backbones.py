"""Feature pyramids for Mask R-CNN: torchvision's ResNets, and anything timm has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import get_model, get_model_weights, list_models, resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "group": partial(nn.GroupNorm, 8),
}


def norm_layer(name: str) -> Callable[[int], nn.Module]:
    """Returns the normalization's constructor.

    Raises:
        ValueError: if there is no normalization of this name.
    """
    if name not in NORMS:
        raise ValueError(f"norm={name!r} is unknown; choose one of {', '.join(NORMS)}")
    return NORMS[name]


class ResNetFPN(BackboneWithFPN):
    """A torchvision ResNet with a feature pyramid (https://arxiv.org/abs/1612.03144) on its four stages.

    Parameters are named as in torchvision's published Mask R-CNN files, which therefore load.

    Args:
        name: ``resnet18`` to ``resnet152``, ``resnext...`` or ``wide_resnet...``.
        weights: ``imagenet`` (downloaded once), a local file of the classifier, or None.
        trainable_layers: how many of the five stages learn, counted from the last.
        norm: ``frozen`` for pretrained weights and small batches, ``batch`` or ``group`` from scratch.
        fpn_norm: normalization in the pyramid, ``batch`` in version 2 of the published model, or None.
        out_channels: channels of every level.
    """

    def __init__(
        self,
        name: str = "resnet50",
        weights: str | None = None,
        trainable_layers: int = 5,
        norm: str = "frozen",
        fpn_norm: str | None = None,
        out_channels: int = 256,
    ) -> None:
        names = [known for known in list_models(module=models) if hasattr(resnet, known)]
        if name not in names:
            raise ValueError(f"model.backbone.name={name!r} is no ResNet of torchvision: {', '.join(names)}")
        if not 0 <= trainable_layers <= 5:
            raise ValueError(f"trainable_layers={trainable_layers}: the ResNet has 5 stages, give 0 to 5")
        body = get_model(name, weights=None, norm_layer=norm_layer(norm))
        if weights is not None:
            _load_classifier(body, name, weights)
        stages = ["layer4", "layer3", "layer2", "layer1", "conv1"][:trainable_layers]
        if trainable_layers == 5:
            stages.append("bn1")
        for key, parameter in body.named_parameters():
            parameter.requires_grad_(key.startswith(tuple(stages)))
        width = body.inplanes // 8
        super().__init__(
            body,
            return_layers={f"layer{stage}": str(stage - 1) for stage in range(1, 5)},
            in_channels_list=[width * 2**level for level in range(4)],
            out_channels=out_channels,
            norm_layer=norm_layer(fpn_norm) if fpn_norm else None,
        )


def _load_classifier(body: nn.Module, name: str, weights: str) -> None:
    if weights == "imagenet":
        state = get_model_weights(name).IMAGENET1K_V1.get_state_dict(progress=False)
    elif Path(weights).is_file():
        state = torch.load(weights, map_location="cpu", weights_only=True)
    else:
        raise ValueError(f"model.backbone.weights={weights!r} is neither 'imagenet' nor a file")
    try:
        body.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"model.backbone.weights={weights} does not fit {name}: {reason}") from None


class TimmFPN(nn.Module):
    """Any timm network that gives feature maps, with a feature pyramid on top.

    Args:
        name: a timm model, such as ``mobilenetv3_small_050`` or ``convnext_tiny``.
        pretrained: load timm's weights (downloaded once).
        levels: which of the network's feature maps to use, by timm's ``out_indices``.
        out_channels: channels of every level.
        options: further arguments of ``timm.create_model``.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        levels: tuple[int, ...] = (1, 2, 3, 4),
        out_channels: int = 256,
        options: dict | None = None,
    ) -> None:
        super().__init__()
        import timm  # slow to import, and only this backbone needs it

        self.body = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=tuple(levels), **(options or {})
        )
        info: Any = self.body.feature_info
        self.fpn = FeaturePyramidNetwork(info.channels(), out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Returns the levels by name, the finest first: ``0``, ``1``, ..., ``pool``."""
        return self.fpn(OrderedDict((str(level), maps) for level, maps in enumerate(self.body(image))))
