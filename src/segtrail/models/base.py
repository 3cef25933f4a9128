"""The contract of every semantic architecture: image in, :class:`Output` out, any input size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.data.types import DerivedTarget

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(slots=True)
class Output:
    """What every semantic architecture returns.

    Attributes:
        logits: (B, C, H, W) at the input's size; C = 1 means binary.
        auxiliary: further named outputs that auxiliary losses read.
    """

    logits: Tensor
    auxiliary: dict[str, Tensor] = field(default_factory=dict)


class ImageSizeError(ValueError):
    """An image smaller than a model's stride."""


class SegmentationModel(nn.Module):
    """Base of the semantic architectures.

    A subclass implements :meth:`segment`; :meth:`forward` pads the image to ``size_divisor`` by
    repeating its border and crops every spatial output back, so that any size from the stride on works.

    Attributes:
        size_divisor: height and width that reach :meth:`segment` are multiples of it,
        min_size: and at least this.
        output_stride: of the encoder's last map.
        mean, std: per-channel normalization that belongs to the weights, for images in 0..1.
        derived: targets or inputs that the loader has to compute for this model, by name.
    """

    size_divisor: int = 1
    min_size: int = 1
    output_stride: int = 1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    derived: Mapping[str, DerivedTarget] = MappingProxyType({})

    @property
    def stride(self) -> int:
        """Pixels a side of the smallest image: less is not one cell of the coarsest map."""
        return max(self.output_stride, self.size_divisor)

    def forward(self, image: Tensor, **derived: Tensor) -> Output:
        """Segments normalized images of any size from :attr:`stride` on.

        Args:
            image: (B, 3, H, W) float, normalized with ``mean`` and ``std``.
            **derived: the batch's derived arrays that ``self.derived`` names, (B, ..., H, W).

        Raises:
            ImageSizeError: the height or the width is less than :attr:`stride`.
        """
        height, width = image.shape[-2:]
        if height < self.stride or width < self.stride:
            raise ImageSizeError(
                f"the image of {height}x{width} pixels is smaller than the model's stride of {self.stride}: "
                f"enlarge it to at least {self.stride}x{self.stride}, or choose a model of a smaller stride"
            )
        pad_h, pad_w = (max(-size % self.size_divisor, self.min_size - size) for size in (height, width))

        def pad(array: Tensor) -> Tensor:  # replicate needs 4-D floats
            padded = F.pad(
                array.reshape(-1, 1, height, width).float(), (0, pad_w, 0, pad_h), mode="replicate"
            )
            return padded.reshape(*array.shape[:-2], height + pad_h, width + pad_w).to(array.dtype)

        padded_size = (height + pad_h, width + pad_w)
        if pad_h or pad_w:
            image, derived = pad(image), {name: pad(array) for name, array in derived.items()}
        output = self.segment(image, **derived)
        if output.logits.shape[-2:] != padded_size:
            raise ValueError(
                f"{type(self).__name__}: logits of {tuple(output.logits.shape[-2:])} for an input of "
                f"{padded_size}; check the decoder's upsampling against the encoder's depth and stride"
            )

        def crop(array: Tensor) -> Tensor:
            return array[..., :height, :width] if array.shape[-2:] == padded_size else array

        return Output(crop(output.logits), {name: crop(array) for name, array in output.auxiliary.items()})

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        """Segments images whose size is a multiple of ``size_divisor``."""
        raise NotImplementedError

    def auxiliary_losses(
        self, output: Output, target: Tensor, loss: nn.Module, **derived: Tensor
    ) -> dict[str, Tensor]:
        """Weighted terms that the architecture adds to the loss while it trains, by name.

        Args:
            output: what :meth:`forward` returned.
            target: (B, H, W) int64 class ids.
            loss: the run's loss, for auxiliary heads that share it.
            **derived: the batch's derived arrays.
        """
        return {}

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the (often pretrained) encoder, which may learn at a rate of their own."""
        encoder = getattr(self, "encoder", None)
        return encoder.parameters() if isinstance(encoder, nn.Module) else ()
