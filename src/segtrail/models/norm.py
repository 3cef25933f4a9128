"""Batch normalization that survives a batch with one value per channel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that uses its running statistics where a batch has none.

    Global pooling leaves one value per channel and image; a training batch of one image (often the
    last of an epoch) then has no variance, for which torch raises an error.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def tolerate_single_values(network: nn.Module) -> None:
    """Gives the plain batch normalizations of a third-party network this behavior, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm2d
