"""``segtrail models``."""

import pytest
import torch
from torch import nn

from segtrail.inference.model_table import count_macs, main, model_configs
from segtrail.models.base import Output, SegmentationModel
from tests.models.compact import semantic_models


class OneLayer(SegmentationModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, padding=1)

    def segment(self, image: torch.Tensor, **derived: torch.Tensor) -> Output:
        return Output(self.layer(image))


def test_counts_multiply_accumulates() -> None:
    assert count_macs(OneLayer(), 16) == 16 * 16 * 3 * 5 * 9


def test_prints_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(model_configs(21)) == set(semantic_models())
    assert (
        main(["unet_original", "fpn", "--encoder", "tu-test_resnet", "--size", "64", "--repeats", "1"]) == 0
    )
    printed = capsys.readouterr().out
    assert "tu-test_resnet" in printed
    assert "1.94 M" in printed  # the original U-Net at base_channels=16


def test_an_encoder_that_does_not_fit_is_a_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deeplab", "--encoder", "vgg11", "--size", "64", "--repeats", "0"]) == 0
    assert "deeplab: DeepLabV3Plus cannot be built on encoder_name=vgg11" in capsys.readouterr().out


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["unett"])
    assert "no model 'unett'" in capsys.readouterr().err
