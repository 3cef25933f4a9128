"""Pretrained encoders without a network, and what a user reads when weights do not fit."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from segtrail.models.deeplab_v1 import DeepLabV1
from segtrail.models.encoder import build_encoder
from segtrail.models.fastfcn import FastFCN
from segtrail.models.gscnn import GatedSCNN
from segtrail.models.smp import SmpModel

LITE0 = "tu-tf_efficientnet_lite0"


def test_loads_an_installed_package(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = SmpModel("FPN", 4, LITE0, "pkg:efficientnet_lite0")
    assert "loaded 288 of 288 tensors" in caplog.text
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    # trained filters, not random ones: neighboring weights of the first convolution go together
    first = model.network.encoder.model.conv_stem.weight
    random = SmpModel("FPN", 4, LITE0, "none").network.encoder.model.conv_stem.weight

    def smoothness(w: torch.Tensor) -> float:
        return (w[..., 1:] * w[..., :-1]).sum().item() / w.square().sum().item()

    assert smoothness(first) > 0.1 > abs(smoothness(random))


def test_fits_other_numbers_of_channels() -> None:
    gray = build_encoder(LITE0, "pkg:efficientnet_lite0", 1, 32, (5,))[0].eval()
    color = build_encoder(LITE0, "pkg:efficientnet_lite0", 3, 32, (5,))[0].eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        same = color(image.expand(-1, 3, -1, -1))[1]
        assert gray(image)[1].std() / same.std() == pytest.approx(1, abs=0.8)


def test_loads_a_file_with_other_prefixes(tmp_path: Path) -> None:
    encoder, _ = build_encoder("tu-test_resnet", None, 3, 32, (5,))
    state = {f"module.encoder.{n.removeprefix('model.')}": t for n, t in encoder.state_dict().items()}
    torch.save({"state_dict": state | {"module.fc.weight": torch.zeros(2)}}, tmp_path / "weights.pth")
    model = SmpModel(
        "DeepLabV3", 4, "tu-test_resnet", f"file:{tmp_path}/weights.pth", encoder_output_stride=16
    )
    assert torch.equal(
        model.network.encoder.state_dict()["model.conv1.0.weight"],
        encoder.state_dict()["model.conv1.0.weight"],
    )


UNET: dict[str, Any] = {"architecture": "Unet", "num_classes": 4}


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (
            SmpModel,
            {**UNET, "encoder_name": "resnet19"},
            "encoder_name='resnet19' is unknown; did you mean 'resnet18'?",
        ),
        (
            SmpModel,
            {**UNET, "encoder_name": "tu-resnett18"},
            "is not a model of timm; did you mean 'tu-resnet18'?",
        ),
        (SmpModel, {**UNET, "architecture": "Uet", "encoder_name": "resnet18"}, "did you mean 'Unet'?"),
        (
            SmpModel,
            {**UNET, "encoder_name": "resnet18", "decoder_chanels": [1]},
            "Unet takes no 'decoder_chanels'; did you mean 'decoder_channels'?",
        ),
        (
            SmpModel,
            {**UNET, "encoder_name": "tu-test_resnet", "decoder_channels": [8]},
            "Unet cannot be built on encoder_name=tu-test_resnet",
        ),
        (
            SmpModel,
            {"architecture": "DeepLabV3Plus", "num_classes": 4, "encoder_name": "vgg11"},
            "DeepLabV3Plus cannot be built on encoder_name=vgg11: VGG' models do not support dilated mode",
        ),
        (
            SmpModel,
            {"architecture": "FPN", "num_classes": 4, "encoder_name": "tu-test_resnet", "upsampling": 2},
            "logits of (16, 16) for an input of (32, 32)",
        ),
        (
            SmpModel,
            {**UNET, "encoder_name": "resnet18", "encoder_weights": "imagnet"},
            "encoder resnet18 has no weights 'imagnet'; did you mean 'imagenet'?",
        ),
        (
            SmpModel,
            {**UNET, "encoder_name": "tu-test_resnet", "encoder_weights": "pkg:lite0"},
            "encoder weights pkg:lite0 are unknown; known: efficientnet_lite0",
        ),
        (
            SmpModel,
            {**UNET, "encoder_name": "tu-test_resnet", "encoder_weights": "pkg:efficientnet_lite0"},
            "fit encoder_name=tu-tf_efficientnet_lite0, not tu-test_resnet",
        ),
        (FastFCN, {"num_classes": 4, "head": "encnett"}, "head='encnett' is unknown; did you mean 'encnet'?"),
        (FastFCN, {"num_classes": 4, "upsampling": "jpux"}, "upsampling='jpux' is unknown"),
        (
            FastFCN,
            {"num_classes": 4, "encoder_name": "tu-test_vit"},
            "encoder_name=tu-test_vit cannot be built with output stride 32",
        ),
        (
            GatedSCNN,
            {"num_classes": 4, "encoder_name": "tu-test_convnext"},
            "has maps at strides [0, 4, 8, 8, 8], needed are [2, 4, 8, 8, 8]",
        ),
        (
            GatedSCNN,
            {"num_classes": 4, "encoder_name": "tu-test_resnet", "shape_width": 12},
            "shape_width=12 is halved three times",
        ),
        (DeepLabV1, {"num_classes": 4, "encoder_name": "resnet18"}, "DeepLab v1 needs one of vgg11"),
    ],
)
def test_bad_uses_are_one_clear_line(build: Any, arguments: dict[str, Any], message: str) -> None:
    def use() -> None:
        build(**arguments)(torch.zeros(1, 3, 32, 32))

    with pytest.raises(ValueError, match=re.escape(message)) as error:
        use()
    assert "\n" not in str(error.value)


def test_offline_downloads_name_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch as smp

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr(smp.encoders, "get_encoder", fail)
    from segtrail.models.encoder_weights import load_encoder_weights

    with pytest.raises(
        ConnectionError, match=r"cannot download.*no route to host.*encoder_weights=none"
    ) as error:
        load_encoder_weights(torch.nn.Identity(), "resnet18", "imagenet")
    assert "\n" not in str(error.value)


def test_weights_of_another_encoder(tmp_path: Path) -> None:
    encoder, _ = build_encoder("tu-test_resnet", None, 3, 32, (5,))
    torch.save(encoder.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"\d+ of \d+ tensors are missing.*weights of another architecture"):
        build_encoder("tu-test_efficientnet", f"file:{tmp_path}/w.pth", 3, 32, (5,))
    state = encoder.state_dict()
    state["model.layer1.0.conv1.weight"] = torch.zeros(1, 1, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"1 of \d+ tensors differ in shape.*\(1, 1, 3, 3\) in the weights"):
        build_encoder("tu-test_resnet", f"file:{tmp_path}/w.pth", 3, 32, (5,))
    (tmp_path / "w.pth").write_text("no weights")
    with pytest.raises(ValueError, match="cannot read weights from"):
        build_encoder("tu-test_resnet", f"file:{tmp_path}/w.pth", 3, 32, (5,))
    with pytest.raises(FileNotFoundError, match="no weights file"):
        build_encoder("tu-test_resnet", f"file:{tmp_path}/none.pth", 3, 32, (5,))


def test_checkpoint_of_another_model_or_class_count(tmp_path: Path) -> None:
    file = str(tmp_path / "w.pth")
    small = {"encoder_name": "tu-test_resnet", "jpu_width": 16}
    torch.save(FastFCN(4, "fcn", **small).state_dict(), file)
    with pytest.raises(ValueError, match="trained with 4 classes, this model has 7"):
        FastFCN(7, "fcn", **small, checkpoint=file)
    with pytest.raises(ValueError, match=r"is not of this FastFCN: \d+ of \d+ tensors missing"):
        FastFCN(4, "psp", **small, checkpoint=file)
    with pytest.raises(ValueError, match="another width or encoder"):
        FastFCN(4, "fcn", encoder_name="tu-test_resnet", jpu_width=32, checkpoint=file)
