"""Mask R-CNN: boxes, masks and class scores of every object (https://arxiv.org/abs/1703.06870)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torchvision.models.detection import transform as torchvision_transform
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from segtrail.losses.base import Loss
from segtrail.models.base import IMAGENET_MEAN, IMAGENET_STD
from segtrail.models.mask_rcnn_backbones import ResNetFPN, norm_layer
from segtrail.models.mask_rcnn_heads import RoIHeads, Targets
from segtrail.models.mask_rcnn_weights import COCO_NAMES, load_weights

BACKGROUND = ("background", "__background__")
LOSSES = ("objectness", "rpn_box", "classifier", "box", "mask")


class MaskRCNN(GeneralizedRCNN):
    """Mask R-CNN of torchvision's parts, in version 1 or 2, with any backbone, losses and class names.

    Labels, in and out, are ids into ``class_names``. A class named ``background`` must be the first;
    without one an output for it is added. Parameters keep torchvision's names, and every argument that
    torchvision has keeps torchvision's name and default.

    Args:
        class_names: names in id order; None takes those of COCO's published files.
        backbone: a pyramid whose levels are named ``0``, ``1``, ... and ``pool``; None is ResNet-50.
        weights: ``coco``, ``coco_v2`` or a local file; see :func:`load_weights`.
        anchor_sizes: pixels, one size for each level including ``pool``.
        anchor_ratios: height / width.
        rpn_convs, box_convs, mask_convs: convolutions of the heads (version 2: 2, 4, 4).
        box_features, mask_channels: widths of the heads.
        head_norm: normalization in the box and mask heads (version 2: ``batch``), or None.
        min_size: shorter side after resizing; several values train at random scales.
        max_size: limit of the longer side.
        box_loss: what the box head learns by; None is Fast R-CNN's.
        loss_weights: factor of each of ``LOSSES``; those not named have 1.

    Shape:
        images: list of (3, H, W) uint8, or float in 0..1; sizes may differ. Targets: dicts of boxes
        (N, 4) float xyxy, labels (N,) int64, masks (N, H, W) uint8. Detections: dicts of boxes (N, 4),
        labels (N,), scores (N,) falling, and masks (N, m, m) probabilities within the box.

    Raises:
        ValueError: if the class names, the weights or the loss weights do not fit.
    """

    size_divisor = 1
    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(
        self,
        class_names: Sequence[str] | None = None,
        backbone: nn.Module | None = None,
        weights: str | None = None,
        *,
        anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rpn_convs: int = 1,
        box_convs: int = 0,
        box_features: int = 1024,
        mask_convs: int = 4,
        mask_channels: int = 256,
        head_norm: str | None = None,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        box_loss: nn.Module | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        names = _outputs(class_names, weights)
        backbone = ResNetFPN() if backbone is None else backbone
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        anchors = AnchorGenerator(
            tuple((size,) for size in anchor_sizes), (tuple(anchor_ratios),) * len(anchor_sizes)
        )
        rpn = RegionProposalNetwork(
            anchors,
            RPNHead(channels, len(anchor_ratios), conv_depth=rpn_convs),
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            score_thresh=rpn_score_thresh,
        )
        norm = norm_layer(head_norm) if head_norm else None
        box_head: nn.Module = TwoMLPHead(channels * 7 * 7, box_features)
        if box_convs:
            box_head = FastRCNNConvFCHead((channels, 7, 7), [channels] * box_convs, [box_features], norm)
        levels = [str(level) for level in range(len(anchor_sizes) - 1)]
        roi_heads = RoIHeads(
            MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
            box_head,
            FastRCNNPredictor(box_features, len(names)),
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            tuple(bbox_reg_weights),
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
            mask_roi_pool=MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=2),
            mask_head=MaskRCNNHeads(channels, [mask_channels] * mask_convs, 1, norm),
            mask_predictor=MaskRCNNPredictor(mask_channels, mask_channels, len(names)),
            box_loss=box_loss,
        )
        sizes = (min_size,) if isinstance(min_size, int) else tuple(min_size)
        transform = torchvision_transform.GeneralizedRCNNTransform(
            sizes, max_size, list(self.mean), list(self.std)
        )
        super().__init__(backbone, rpn, roi_heads, transform)
        self.class_names = tuple(names if class_names is None else class_names)
        self._offset = len(names) - len(self.class_names)  # 1 if the classes have no background
        self.loss_weights = _loss_weights(loss_weights or {})
        if weights is not None:
            load_weights(self, weights, names)

    def forward(
        self, images: list[Tensor], targets: Targets | None = None, mask_loss: Loss | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Returns the weighted losses while training, else the detections."""
        if self.training:
            if targets is None:
                raise ValueError("Mask R-CNN learns from targets; call eval() to detect without them")
            return self._run(images, targets, mask_loss, detect=False)[0]
        return self._run(images, None, None, detect=True)[1]

    def validate(
        self, images: list[Tensor], targets: Targets, mask_loss: Loss | None = None
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Returns losses and detections from one pass through the backbone, with eval's normalization."""
        return self._run(images, targets, mask_loss, detect=True)

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the network under the pyramid, which may learn at a rate of their own."""
        return self.backbone.body.parameters()

    def _run(
        self, images: list[Tensor], targets: Targets | None, mask_loss: Loss | None, detect: bool
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        scaled = [
            _thickened(image if image.is_floating_point() else image / 255, self.transform.max_size)
            for image in images
        ]
        original = [(int(image.shape[-2]), int(image.shape[-1])) for image in scaled]
        batch, resized = self.transform(scaled, self._outputs_of(targets))
        features = self.backbone(batch.tensors)
        losses: dict[str, Tensor] = {}
        detections: list[dict[str, Tensor]] = []
        if resized is not None:
            with _flagged_training(self.rpn):
                proposals, rpn = self.rpn(batch, features, resized)
            heads = self.roi_heads.losses(features, proposals, batch.image_sizes, resized, mask_loss)
            raw = {"objectness": rpn["loss_objectness"], "rpn_box": rpn["loss_rpn_box_reg"], **heads}
            losses = {name: value * self._weight(name) for name, value in raw.items()}
        if detect:
            proposals, _ = self.rpn(batch, features)
            detections, _ = self.roi_heads(features, proposals, batch.image_sizes)
            for found, size, target_size in zip(detections, batch.image_sizes, original, strict=True):
                found["boxes"] = torchvision_transform.resize_boxes(found["boxes"], size, target_size)
                found["labels"] = found["labels"] - self._offset
                found["masks"] = found["masks"][:, 0]
        return losses, detections

    def _outputs_of(self, targets: Targets | None) -> Targets | None:
        """Counts labels as the network's outputs do."""
        if targets is None:
            return None
        return [{**target, "labels": target["labels"] + self._offset} for target in targets]

    def _weight(self, name: str) -> float:
        return self.loss_weights["mask" if name.startswith("mask") else name]


def _thickened(image: Tensor, max_size: int) -> Tensor:
    """Pads the rare image that would be thinner than a pixel after resizing, right or at the bottom."""
    height, width = image.shape[-2:]
    least = -(-max(height, width) // max_size)
    if min(height, width) >= least:
        return image
    return nn.functional.pad(image, (0, max(0, least - width), 0, max(0, least - height)))


@contextmanager
def _flagged_training(rpn: nn.Module) -> Iterator[None]:
    """Lets the RPN return losses without waking the batch normalization below it."""
    before, rpn.training = rpn.training, True
    try:
        yield
    finally:
        rpn.training = before


def _outputs(class_names: Sequence[str] | None, weights: str | None) -> tuple[str, ...]:
    """Names of the network's outputs, background first."""
    if class_names is None:
        if weights is None:
            raise ValueError("model.class_names is null, which needs model.weights trained on COCO's classes")
        return COCO_NAMES
    names = [BACKGROUND[1] if name in BACKGROUND else name for name in class_names]
    if BACKGROUND[1] in names[1:]:
        raise ValueError(
            f"class {names.index(BACKGROUND[1], 1)} is the background; it must be class 0 or absent"
        )
    return tuple(names) if names[:1] == [BACKGROUND[1]] else (BACKGROUND[1], *names)


def _loss_weights(weights: Mapping[str, float]) -> dict[str, float]:
    unknown = set(weights) - set(LOSSES)
    if unknown:
        raise ValueError(
            f"model.loss_weights has {', '.join(sorted(unknown))}; the losses are {', '.join(LOSSES)}"
        )
    return dict.fromkeys(LOSSES, 1.0) | {name: float(weight) for name, weight in weights.items()}
