"""Every semantic architecture in conf/model, made small enough to test."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from segtrail.losses.base import Loss
from segtrail.models.base import Output, SegmentationModel

CONF = Path(__file__).parents[2] / "conf"
NUM_CLASSES = 4
VOID = 255
ENCODERS = ("tu-test_efficientnet", "tu-test_resnet")

# beside a tiny encoder
SMALLER: dict[str, dict[str, Any]] = {
    "unet": {"decoder_channels": [32, 24, 16, 12, 8]},
    "unetplusplus": {"decoder_channels": [32, 24, 16, 12, 8]},
    "manet": {"decoder_channels": [32, 24, 16, 12, 8], "decoder_pab_channels": 8},
    "fpn": {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 64},
    "pspnet": {"psp_out_channels": 32},
    "deeplabv3": {"decoder_channels": 32},
    "deeplab": {"decoder_channels": 32},
    "upernet": {"decoder_channels": 32},
    "segformer": {"decoder_segmentation_channels": 64},
    "dpt": {"decoder_intermediate_channels": [16, 16, 32, 32], "decoder_fusion_channels": 16},
    "fastfcn": {"jpu_width": 16},
    "gscnn": {"decoder_channels": 32, "shape_width": 16},
    "deeplab_v1": {"width": 32},
    "unet_original": {"base_channels": 6},
}
# what stands for the two encoders where an architecture takes others or none
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dpt": ({"encoder_name": "tu-test_vit"}, {"encoder_name": "tu-test_vit2"}),
    "deeplab_v1": ({"encoder_name": "vgg11"}, {"encoder_name": "vgg11_bn"}),
    "unet_original": ({"padding": "same"}, {"padding": "valid"}),
}


@cache
def semantic_models() -> tuple[str, ...]:
    """Names of the YAML files whose target is a semantic architecture."""
    names = []
    for file in sorted((CONF / "model").glob("*.yaml")):
        target = yaml.safe_load(file.read_text()).get("_target_", "")
        if target.startswith("segtrail.models.") and issubclass(locate(target), SegmentationModel):
            names.append(file.stem)
    return tuple(names)


def locate(target: str) -> Any:
    module, name = target.rsplit(".", 1)
    return getattr(import_module(module), name)


def configured(group: str, name: str, **overrides: Any) -> Any:
    """Builds what conf/<group>/<name>.yaml describes."""
    config = OmegaConf.create({"num_classes": NUM_CLASSES, "ignore_index": VOID})
    config[group] = OmegaConf.merge(OmegaConf.load(CONF / group / f"{name}.yaml"), overrides)
    return instantiate(config[group], _convert_="all")


def losses() -> tuple[str, ...]:
    """Names of the YAML files of the semantic losses."""
    return tuple(sorted(file.stem for file in (CONF / "loss").glob("*.yaml")))


def configured_loss(name: str, target: torch.Tensor) -> Loss:
    """Builds conf/loss/<name>.yaml for a training split that is the one batch of ``target``."""
    loss = configured("loss", name)
    if loss.class_counts_wanted:
        loss.set_class_counts(torch.bincount(target[target != VOID], minlength=NUM_CLASSES).double())
    return loss


def sizes(name: str, variant: int = 0) -> dict[str, Any]:
    """What makes an architecture a small one."""
    encoder = VARIANTS[name][variant] if name in VARIANTS else {"encoder_name": ENCODERS[variant]}
    return encoder | SMALLER.get(name, {})


def compact(name: str, variant: int = 0, **overrides: Any) -> SegmentationModel:
    torch.manual_seed(variant)
    return configured("model", name, **(sizes(name, variant) | overrides))


def blobs(batch: int, height: int, width: int, num_classes: int = NUM_CLASSES) -> torch.Tensor:
    """Label maps of a few smooth regions, with a void corner."""
    noise = torch.rand(batch, num_classes, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear").argmax(1)
    target[:, : height // 8, : width // 8] = VOID
    return target


def total(
    model: SegmentationModel,
    output: Output,
    target: torch.Tensor,
    loss: Any,
    derived: dict[str, torch.Tensor],
) -> torch.Tensor:
    """What training minimizes."""
    auxiliary = model.auxiliary_losses(output, target, loss, **derived)
    return loss(output.logits, target) + sum(auxiliary.values())


def derived_of(model: SegmentationModel, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """The derived arrays that the loader would compute, for gray images."""
    arrays: dict[str, list[torch.Tensor]] = {name: [] for name in model.derived}
    for mask in target.numpy().astype("uint8"):
        gray = (mask * 60)[..., None].repeat(3, axis=2)
        for name, function in model.derived.items():
            arrays[name].append(torch.from_numpy(function(gray, mask, NUM_CLASSES, VOID)))
    return {name: torch.stack(found) for name, found in arrays.items()}
