"""FastFCN: a stride-32 encoder, Joint Pyramid Upsampling in the place of dilation, any head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.models.base import Output, SegmentationModel
from segtrail.models.blocks import resize
from segtrail.models.checkpoint import load_checkpoint
from segtrail.models.encoder import build_encoder, nearest
from segtrail.models.fastfcn_names import PUBLISHED_NAMES
from segtrail.models.heads import ASPPHead, EncNetHead, FCNHead, PSPHead
from segtrail.models.jpu import JPU, JPUX
from segtrail.models.norm import tolerate_single_values

HEADS = ("fcn", "encnet", "psp", "aspp")
UPSAMPLINGS = ("jpu", "jpu_x", "none")


class FastFCN(SegmentationModel):
    """FastFCN (Wu et al., 2019).

    ``auxiliary`` of the output holds, while training, ``auxiliary`` (an FCN head on the stride-16 map)
    and, with the head ``encnet``, ``presence`` (logits of which classes the image shows).

    Args:
        num_classes: channels of the logits.
        head: ``fcn``, ``encnet``, ``psp`` or ``aspp``.
        encoder_name: any encoder with maps at strides 8, 16 and 32; ``tu-resnet50s`` is the published one
            with three 3x3 convolutions in its stem.
        encoder_weights: see :func:`segtrail.models.encoder_weights.load_encoder_weights`.
        in_channels: channels of the image.
        upsampling: ``jpu``, ``jpu_x``, or ``none`` for the encoder dilated to stride 8, which FastFCN
            is compared with.
        jpu_width: width of each branch of the upsampling.
        codewords: size of EncNet's codebook.
        lateral: whether EncNet's head fuses the stride-8 and stride-16 maps in.
        auxiliary_weight: of the run's loss on the auxiliary head; 0 leaves the head out.
        presence_weight: of EncNet's semantic-encoding loss.
        ignore_index: the class id without a meaning.
        checkpoint: weights of the whole model, also as published by the authors.
    """

    def __init__(
        self,
        num_classes: int,
        head: str = "encnet",
        encoder_name: str = "tu-resnet50s",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        upsampling: str = "jpu",
        jpu_width: int = 512,
        codewords: int = 32,
        lateral: bool = False,
        auxiliary_weight: float = 0.2,
        presence_weight: float = 0.2,
        ignore_index: int = 255,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head={head!r} is unknown{nearest(head, HEADS)}")
        if upsampling not in UPSAMPLINGS:
            raise ValueError(f"upsampling={upsampling!r} is unknown{nearest(upsampling, UPSAMPLINGS)}")
        self.auxiliary_weight = auxiliary_weight
        self.presence_weight = presence_weight
        self.ignore_index = ignore_index
        dilated = upsampling == "none"
        self.encoder, (self.mean, self.std) = build_encoder(
            encoder_name, encoder_weights, in_channels, 8 if dilated else 32, levels=(3, 4, 5)
        )
        self.size_divisor = self.output_stride = int(self.encoder.output_stride)
        channels = self.encoder.out_channels[3:6]
        self.upsampling: JPU | JPUX | None = None
        if not dilated:
            self.upsampling = (JPU if upsampling == "jpu" else JPUX)(channels, jpu_width)
        width = channels[-1] if self.upsampling is None else self.upsampling.out_channels
        self.head: nn.Module
        if head == "encnet":
            self.head = EncNetHead(
                width, num_classes, 3 if dilated else 1, codewords, channels[:2] if lateral else ()
            )
        else:
            self.head = {"fcn": FCNHead, "psp": PSPHead, "aspp": ASPPHead}[head](width, num_classes)
        self.auxiliary_head = FCNHead(channels[1], num_classes) if auxiliary_weight else None
        tolerate_single_values(self)
        if checkpoint:
            load_checkpoint(self, checkpoint, PUBLISHED_NAMES[head])

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        size = image.shape[-2:]
        c3, c4, c5 = self.encoder(image)[3:6]
        joint = c5 if self.upsampling is None else self.upsampling([c3, c4, c5])
        lateral = ([c3, c4],) if isinstance(self.head, EncNetHead) else ()
        logits, auxiliary = self.head(joint, *lateral)
        if self.training and self.auxiliary_head is not None:
            auxiliary["auxiliary"] = resize(self.auxiliary_head(c4)[0], size)
        return Output(resize(logits, size), auxiliary)

    def auxiliary_losses(
        self, output: Output, target: Tensor, loss: nn.Module, **derived: Tensor
    ) -> dict[str, Tensor]:
        terms = {}
        if "auxiliary" in output.auxiliary:
            terms["auxiliary"] = self.auxiliary_weight * loss(output.auxiliary["auxiliary"], target)
        if "presence" in output.auxiliary:
            presence = output.auxiliary["presence"].float()
            wanted = class_presence(target, presence.shape[1], self.ignore_index).to(presence)
            terms["presence"] = self.presence_weight * F.binary_cross_entropy_with_logits(presence, wanted)
        return terms


def class_presence(target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Which classes each label map shows.

    Shape:
        (B, H, W) int64 -> (B, num_classes) bool; one column, that of class 1, if binary.
    """
    valid = (target != ignore_index) & (target >= 0)
    # void pixels mark a column of their own, which is dropped
    marks = torch.where(valid, target, max(num_classes, 2)).flatten(1)
    present = torch.zeros(len(target), max(num_classes, 2) + 1, dtype=torch.bool, device=target.device)
    present.scatter_(1, marks, True)
    return present[:, 1:2] if num_classes == 1 else present[:, :num_classes]
