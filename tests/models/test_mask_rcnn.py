"""Mask R-CNN against torchvision's own, its weights, and awkward targets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import FrozenBatchNorm2d

from segtrail.losses.base import Loss
from segtrail.models.mask_rcnn import MaskRCNN
from segtrail.models.mask_rcnn_backbones import ResNetFPN, TimmFPN
from segtrail.models.mask_rcnn_weights import COCO_NAMES

SMALL: dict[str, Any] = {
    "anchor_sizes": (8, 16, 32, 64, 128),
    "box_features": 16,
    "mask_convs": 1,
    "mask_channels": 8,
    "min_size": 64,
    "max_size": 96,
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_batch_size_per_image": 16,
}
NAMES = ("background", "disk", "box")


class TinyBackbone(nn.Module):
    """Five levels by pooling: enough for the heads, and cheap."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 5, stride=4, padding=2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        levels = [self.body(image).relu()]
        for _ in range(4):
            levels.append(nn.functional.max_pool2d(levels[-1], 2, ceil_mode=True))
        return dict(zip(("0", "1", "2", "3", "pool"), levels, strict=True))


def tiny(**options: Any) -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(options.pop("class_names", NAMES), TinyBackbone(), **{**SMALL, **options})


def seeded(model: MaskRCNN) -> MaskRCNN:
    torch.manual_seed(5)
    return model.train()


def batch(count: int = 2) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    images, targets = [], []
    for index in range(count):
        size = (64, 64 + 16 * index)
        masks = torch.zeros(2, *size, dtype=torch.uint8)
        masks[0, 5:30, 8:40] = 1
        masks[1, 20:60, 30:60] = 1
        images.append(torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator))
        boxes = torch.tensor([[8, 5, 40, 30], [30, 20, 60, 60]], dtype=torch.float32)
        targets.append({"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks})
    return images, targets


def empty(height: int = 64, width: int = 64) -> dict[str, Tensor]:
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, height, width, dtype=torch.uint8),
    }


class SumOfTwo(Loss):
    """Two parts, to see them named."""

    def forward(self, logits: Tensor, target: Tensor, **derived: Tensor) -> Tensor:
        return sum(self.parts(logits, target).values(), torch.zeros(()))

    def parts(self, logits: Tensor, target: Tensor, **derived: Tensor) -> dict[str, Tensor]:
        assert logits.shape[1] == 1
        assert target.shape == (len(logits), *logits.shape[2:])
        assert target.dtype == torch.int64
        return {"a": logits.square().mean(), "b": (logits[:, 0] - target).abs().mean()}


def test_losses_and_detections_equal_torchvisions() -> None:
    torch.manual_seed(0)
    options = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_test": 10, "rpn_post_nms_top_n_train": 20}
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, **options)
    ours = MaskRCNN(NAMES, ResNetFPN("resnet50", norm="batch"), box_score_thresh=0.05, **options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images, targets = batch()
    floats = [image / 255 for image in images]
    torch.manual_seed(3)
    expected = theirs.train()(floats, [dict(target) for target in targets])
    torch.manual_seed(3)
    got = ours.train()(images, targets)
    pairs = {
        "objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "classifier": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert set(got) == set(pairs)
    for name, published in pairs.items():
        torch.testing.assert_close(got[name], expected[published])
    with torch.no_grad():
        expected_found = theirs.eval()([floats[1]])[0]
        found = ours.load_state_dict(theirs.state_dict()) and ours.eval()([images[1]])[0]
    assert len(found["scores"]) > 0
    for name in ("boxes", "labels", "scores"):
        torch.testing.assert_close(found[name], expected_found[name])
    pasted = paste_masks_in_image(found["masks"][:, None], found["boxes"], (64, 80))
    torch.testing.assert_close(pasted, expected_found["masks"])


@pytest.mark.parametrize("version", [1, 2])
def test_published_state_dict_loads_strictly(version: int, tmp_path: Path) -> None:
    with torch.device("meta"):
        if version == 1:
            published = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
            ours = MaskRCNN(COCO_NAMES, ResNetFPN(norm="frozen"))
        else:
            published = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
            backbone = ResNetFPN(norm="batch", fpn_norm="batch")
            ours = MaskRCNN(COCO_NAMES, backbone, rpn_convs=2, box_convs=4, head_norm="batch")
    state = dict(published.state_dict())
    if version == 1:  # the file is older than these names, and its normalization is frozen
        state = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
        for layer in range(4):
            for kind in ("weight", "bias"):
                old = f"roi_heads.mask_head.mask_fcn{layer + 1}.{kind}"
                state[old] = state.pop(f"roi_heads.mask_head.{layer}.0.{kind}")
                for block in ("inner_blocks", "layer_blocks"):
                    new = f"backbone.fpn.{block}.{layer}.0.{kind}"
                    state[f"backbone.fpn.{block}.{layer}.{kind}"] = state.pop(new)
        for kind in ("weight", "bias"):
            state[f"rpn.head.conv.{kind}"] = state.pop(f"rpn.head.conv.0.0.{kind}")
    result = ours.load_state_dict(state, strict=True, assign=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert ours.roi_heads.box_predictor.cls_score.weight.shape[0] == 91


def test_new_heads_keep_shared_classes_and_say_what_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tiny(class_names=COCO_NAMES)
    path = tmp_path / "coco.pth"
    torch.save({"model": source.state_dict()}, path)
    with caplog.at_level(logging.WARNING):
        model = tiny(class_names=("kite", "wheel"), weights=str(path))  # no background of its own
    assert "wheel" in caplog.text
    assert "91 outputs, the model 3" in caplog.text
    kite = COCO_NAMES.index("kite")
    heads, published = model.roi_heads, source.roi_heads
    torch.testing.assert_close(
        heads.box_predictor.cls_score.weight[1], published.box_predictor.cls_score.weight[kite]
    )
    torch.testing.assert_close(
        heads.box_predictor.bbox_pred.weight[4:8],
        published.box_predictor.bbox_pred.weight[4 * kite : 4 * kite + 4],
    )
    torch.testing.assert_close(
        heads.mask_predictor.mask_fcn_logits.bias[1], published.mask_predictor.mask_fcn_logits.bias[kite]
    )
    torch.testing.assert_close(model.backbone.body.weight, source.backbone.body.weight)
    assert tiny(class_names=None, weights=str(path)).class_names == COCO_NAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "not a file of tensors"),
        ({"weights": [1, 2]}, "not a state dict"),
        ({"conv.weight": torch.zeros(2)}, "another network"),
        (None, "no file"),
    ],
)
def test_a_wrong_file_is_one_clear_line(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        tiny(weights=str(path))
    assert "\n" not in str(caught.value)
    assert "wrong.pth" in str(caught.value)


def test_another_width_names_the_tensor(tmp_path: Path) -> None:
    path = tmp_path / "wide.pth"
    torch.save(tiny(box_features=32).state_dict(), path)
    with pytest.raises(ValueError, match="another network: size mismatch for roi_heads") as caught:
        tiny(weights=str(path))
    assert "\n" not in str(caught.value)


def test_labels_are_the_datasets_with_or_without_background() -> None:
    images, targets = batch()
    with_background = seeded(tiny())(images, targets)
    shifted = [{**target, "labels": target["labels"] - 1} for target in targets]
    model = tiny(class_names=NAMES[1:])
    without = seeded(model)(images, shifted)
    for name, value in with_background.items():
        torch.testing.assert_close(without[name], value)
    found = model.eval()(images)
    assert set(torch.cat([item["labels"] for item in found]).tolist()) <= {0, 1}


def test_mask_loss_and_weights() -> None:
    images, targets = batch()
    plain = seeded(tiny())(images, targets, SumOfTwo())
    weighted = seeded(tiny(loss_weights={"mask": 2.0, "box": 0.0}))(images, targets, SumOfTwo())
    assert {"mask_a", "mask_b"} < set(plain)
    torch.testing.assert_close(weighted["mask_b"], 2 * plain["mask_b"])
    assert weighted["box"] == 0
    with pytest.raises(ValueError, match="loss_weights has boxes"):
        tiny(loss_weights={"boxes": 1.0})


def test_images_without_objects_and_one_pixel_boxes_train() -> None:
    images, targets = batch()
    targets[0] = empty()
    targets[1]["boxes"][0] = torch.tensor([10.0, 10.0, 11.0, 11.0])
    for loss in (None, SumOfTwo()):
        model = tiny().train()
        losses = model(images, targets, loss)
        total = sum(losses.values(), torch.zeros(()))
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        only_empty = tiny().train()(images[:1], [empty()], loss)
        assert all(torch.isfinite(value) for value in only_empty.values())


def test_thousand_instances() -> None:
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    corner = torch.arange(1000)
    x, y = (corner % 40) * 2, (corner // 40) * 2
    masks = torch.zeros(1000, 96, 96, dtype=torch.uint8)
    masks[corner, y, x] = 1
    target = {
        "boxes": torch.stack([x, y, x + 1, y + 1], 1).float(),
        "labels": torch.ones(1000, dtype=torch.int64),
        "masks": masks,
    }
    losses = tiny().train()([image], [target])
    assert all(torch.isfinite(value) for value in losses.values())


def test_validate_gives_losses_and_detections_and_changes_nothing() -> None:
    images, targets = batch()
    model = tiny(head_norm="batch", box_convs=1).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        losses, found = model.validate(images, targets)
        expected = model(images)
    assert set(losses) == {"objectness", "rpn_box", "classifier", "box", "mask"}
    torch.testing.assert_close(found[0]["boxes"], expected[0]["boxes"])
    assert not model.rpn.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_backbones() -> None:
    frozen = ResNetFPN("resnet18", trainable_layers=2, out_channels=16)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules())
    learns = {name.split(".")[0] for name, value in frozen.body.named_parameters() if value.requires_grad}
    assert learns == {"layer4", "layer3"}
    light = TimmFPN("mobilenetv3_small_050", out_channels=16)
    for backbone in (frozen, light):
        levels = backbone(torch.zeros(1, 3, 64, 64))
        assert list(levels) == ["0", "1", "2", "3", "pool"]
        assert levels["0"].shape == (1, 16, 16, 16)
    with pytest.raises(ValueError, match="no ResNet of torchvision"):
        ResNetFPN("resnet19")
    with pytest.raises(ValueError, match="choose one of batch, frozen, group"):
        ResNetFPN("resnet18", norm="layer")


def test_class_names_must_be_usable() -> None:
    with pytest.raises(ValueError, match="must be class 0 or absent"):
        tiny(class_names=("disk", "background"))
    with pytest.raises(ValueError, match="class_names is null"):
        tiny(class_names=None)
    with pytest.raises(ValueError, match="learns from targets"):
        tiny().train()(batch()[0])
