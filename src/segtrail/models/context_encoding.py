"""Context encoding: global statistics of a map against a learned codebook.

Source: Zhang et al., Context Encoding for Semantic Segmentation, CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoding(nn.Module):
    r"""Soft assignment of features to codewords, and the residuals summed per codeword.

    :math:`e_k = \sum_i a_{ik} (x_i - c_k)`, :math:`a_{i} = \mathrm{softmax}_k(s_k |x_i - c_k|^2)`.
    Expanding the square and the sum makes both steps matrix products and leaves out the
    B x N x K x D residuals.

    Shape:
        (B, D, H, W) -> (B, K, D), in float32 also under autocast.
    """

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        bound = (channels * codewords) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codewords).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.flatten(2).float()  # (B, D, N)
            codes = self.codewords.float()
            cross = torch.matmul(codes, x)  # (B, K, N)
            squares = x.square().sum(1, keepdim=True) - 2 * cross + codes.square().sum(1)[:, None]
            assignment = torch.softmax(self.scale.float()[:, None] * squares, dim=1)
            return torch.matmul(assignment, x.transpose(1, 2)) - assignment.sum(2)[..., None] * codes


class ContextEncoding(nn.Module):
    """Scales the channels of a map by its encoding; also predicts which classes are present.

    Shape:
        (B, D, H, W) -> the map, same shape, and presence logits (B, num_classes).
    """

    def __init__(self, channels: int, num_classes: int, codewords: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.encoding = Encoding(channels, codewords)
        self.norm = nn.Sequential(nn.BatchNorm1d(codewords), nn.ReLU(inplace=True))
        self.gate = nn.Sequential(nn.Linear(channels, channels), nn.Sigmoid())
        self.presence = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.norm(self.encoding(self.project(x))).mean(1)
        gate = self.gate(code)[..., None, None]
        return torch.relu(x + x * gate), self.presence(code)
