"""Gated-SCNN: a shape stream beside the semantic one, joined by gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtrail.data.derived import canny, edges
from segtrail.data.types import DerivedTarget
from segtrail.models.base import Output, SegmentationModel
from segtrail.models.blocks import AtrousPyramid, ConvNormReLU, resize
from segtrail.models.checkpoint import load_checkpoint, read_state_dict, rename
from segtrail.models.encoder import build_encoder
from segtrail.models.encoder_weights import copy_tensors
from segtrail.models.gscnn_losses import dual_task_loss, edge_attention_loss, edge_loss
from segtrail.models.gscnn_names import PUBLISHED_NAMES
from segtrail.models.norm import tolerate_single_values
from segtrail.models.wide_resnet import WideResNet38


class GatedConv(nn.Module):
    """Gated convolution: the semantic stream tells the shape stream where to look.

    :math:`y = w * (x (1 + \\alpha))`, the attention :math:`\\alpha` computed from both streams.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.BatchNorm2d(channels + 1),
            nn.Conv2d(channels + 1, channels + 1, 1),
            nn.ReLU(),
            nn.Conv2d(channels + 1, 1, 1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
        self.convolve = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.xavier_normal_(self.convolve.weight)

    def forward(self, shape: Tensor, semantic: Tensor) -> Tensor:
        alpha = self.attention(torch.cat([shape, semantic], dim=1))
        return self.convolve(shape * (1 + alpha))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *ConvNormReLU(channels, channels, 3), *list(ConvNormReLU(channels, channels, 3))[:2]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class ShapeStream(nn.Module):
    """Predicts edges at full resolution.

    Args:
        in_channels: of the encoder's first map.
        gate_channels: of the three maps that open the gates.
        width: of the stream, halved at each gate.

    Shape:
        the first map, the three gate maps, the image's size -> (B, 1, H, W) edge logits.
    """

    def __init__(self, in_channels: int, gate_channels: Sequence[int], width: int) -> None:
        super().__init__()
        widths = [width, width // 2, width // 4, width // 8]
        self.enter = nn.Identity() if in_channels == width else nn.Conv2d(in_channels, width, 1)
        self.blocks = nn.ModuleList(ResidualBlock(w) for w in widths[:3])
        self.reduce = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))
        self.to_gate = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in gate_channels)
        self.gates = nn.ModuleList(GatedConv(w) for w in widths[1:])
        self.classify = nn.Conv2d(widths[3], 1, 1, bias=False)

    def forward(self, first: Tensor, gate_maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        x = resize(self.enter(first), size)
        steps = zip(self.blocks, self.reduce, self.to_gate, self.gates, gate_maps, strict=True)
        for block, reduce, to_gate, gate, semantic in steps:
            x = gate(reduce(block(x)), resize(to_gate(semantic), size))
        return self.classify(x)


class GatedSCNN(SegmentationModel):
    """Gated-SCNN (Takikawa et al., ICCV 2019), written from the paper.

    ``auxiliary`` of the output holds ``edges``: (B, 1, H, W) logits. The run's loss is the semantic
    term; the model adds an edge term, an edge-attention term and a dual-task term.

    It differs from the authors' code where that has known defects: edges are supervised by their
    logit, not by a sigmoid of a sigmoid; the dual-task term takes spatial gradients; Canny sees the
    uint8 image, not a normalized one.

    Args:
        num_classes: channels of the logits.
        encoder_name: any encoder that can be dilated to ``output_stride``, or ``wide_resnet38``, the
            published trunk.
        encoder_weights: see :func:`segtrail.models.encoder_weights.load_encoder_weights`; the
            published trunk takes ``file:/path.pth`` only.
        in_channels: channels of the image; the Canny edges need 3.
        output_stride: 8 or 16; ``wide_resnet38`` has 8.
        decoder_channels: width of the pyramid and of the decoder.
        atrous_rates: of the pyramid.
        shape_width: of the shape stream, a multiple of 8.
        edge_radius: half the width of the true edges, in pixels.
        edge_weight, attention_weight, dual_weight: of the terms that are added to the run's loss.
        edge_threshold: edge probability over which the attention term counts.
        temperature: of the dual-task term's Gumbel softmax.
        dual_sigma: of its Gaussian filter, in pixels.
        ignore_index: the class id without a meaning.
        checkpoint: weights of the whole model, also as published by the authors.
    """

    def __init__(
        self,
        num_classes: int,
        encoder_name: str = "wide_resnet38",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        output_stride: int = 8,
        decoder_channels: int = 256,
        atrous_rates: Sequence[int] = (12, 24, 36),
        shape_width: int = 64,
        edge_radius: int = 2,
        edge_weight: float = 20.0,
        attention_weight: float = 1.0,
        dual_weight: float = 1.0,
        edge_threshold: float = 0.8,
        temperature: float = 1.0,
        dual_sigma: float = 1.0,
        ignore_index: int = 255,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        if in_channels != 3:
            raise ValueError(f"in_channels={in_channels}: the Canny edges of Gated-SCNN need an RGB image")
        if shape_width % 8:
            raise ValueError(f"shape_width={shape_width} is halved three times: choose a multiple of 8")
        self.encoder: Any
        if encoder_name == "wide_resnet38":
            self.encoder = WideResNet38(in_channels)
            if encoder_weights not in (None, "none"):
                _load_trunk(self.encoder, encoder_weights)
        else:
            self.encoder, (self.mean, self.std) = build_encoder(
                encoder_name, encoder_weights, in_channels, output_stride, levels=(1, 2, 3, 4, 5)
            )
        self.size_divisor = self.output_stride = int(self.encoder.output_stride)
        self.derived: Mapping[str, DerivedTarget] = {
            "canny": canny,
            "edges": partial(edges, radius=edge_radius),
        }
        self.weights = {"edge": edge_weight, "attention": attention_weight, "dual": dual_weight}
        self.edge_threshold = edge_threshold
        self.temperature = temperature
        self.dual_sigma = dual_sigma
        self.ignore_index = ignore_index

        _, first, fine, *gates = channels = self.encoder.out_channels
        width = decoder_channels
        self.shape = ShapeStream(first, gates, shape_width)
        self.blend = nn.Conv2d(2, 1, 1, bias=False)  # predicted edges and Canny's
        self.pyramid = AtrousPyramid(channels[-1], width, atrous_rates)
        self.edge_branch = ConvNormReLU(1, width, 1)
        self.reduce_coarse = nn.Conv2d((len(atrous_rates) + 3) * width, width, 1, bias=False)
        self.reduce_fine = nn.Conv2d(fine, 48, 1, bias=False)
        self.decode = nn.Sequential(
            ConvNormReLU(width + 48, width, 3),
            ConvNormReLU(width, width, 3),
            nn.Conv2d(width, num_classes, 1, bias=False),
        )
        tolerate_single_values(self)
        if checkpoint and load_checkpoint(self, checkpoint, PUBLISHED_NAMES):
            self.blend.weight.data[:, 1] *= 255  # the published network reads Canny's edges as 255

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        size = image.shape[-2:]
        image_edges = derived["canny"] if "canny" in derived else self.image_edges(image)
        _, first, fine, *gates = self.encoder(image)
        edge_logits = self.shape(first, gates, size)
        both = torch.cat([torch.sigmoid(edge_logits), image_edges[:, None].to(edge_logits)], dim=1)
        shape = torch.sigmoid(self.blend(both))

        coarse = gates[-1]
        *pyramid, pooled = (branch(coarse) for branch in self.pyramid)
        shape = self.edge_branch(resize(shape, coarse.shape[-2:]))
        x = self.reduce_coarse(torch.cat([pooled, shape, *pyramid], dim=1))
        x = torch.cat([self.reduce_fine(fine), resize(x, fine.shape[-2:])], dim=1)
        return Output(resize(self.decode(x), size), {"edges": edge_logits})

    def image_edges(self, image: Tensor) -> Tensor:
        """Canny's edges of a normalized batch, where the loader did not compute them; on the CPU.

        Shape:
            (B, 3, H, W) float -> (B, H, W) float of zeros and ones.
        """
        mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in (self.mean, self.std))
        pixels = ((image.detach().float() * std + mean) * 255).round().clamp(0, 255).byte()
        arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
        found = np.stack([canny(np.ascontiguousarray(array), array[..., 0], 0, 0) for array in arrays])
        return torch.from_numpy(found).to(image)

    def auxiliary_losses(
        self, output: Output, target: Tensor, loss: nn.Module, **derived: Tensor
    ) -> dict[str, Tensor]:
        edge_logits = output.auxiliary["edges"]
        terms = {
            "edge": lambda: edge_loss(edge_logits, derived["edges"]),
            "attention": lambda: edge_attention_loss(
                output.logits, target, edge_logits, self.ignore_index, self.edge_threshold
            ),
            "dual": lambda: dual_task_loss(
                output.logits, target, self.ignore_index, self.temperature, self.dual_sigma
            ),
        }
        return {name: self.weights[name] * term() for name, term in terms.items() if self.weights[name]}


def _load_trunk(trunk: WideResNet38, weights: str) -> None:
    """Loads a file of the published trunk, under the names of the authors' code."""
    scheme, _, path = weights.partition(":")
    if scheme != "file":
        raise ValueError(f"encoder_weights={weights!r}: wide_resnet38 takes none or file:PATH")
    state = {}
    for name, tensor in read_state_dict(path).items():
        if ours := rename(name, PUBLISHED_NAMES):
            state[ours.removeprefix("encoder.")] = tensor
    copy_tensors(trunk, state, f"encoder wide_resnet38 from {weights}")
