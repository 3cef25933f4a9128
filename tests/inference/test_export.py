"""Export of small networks; every architecture's own tests export it too."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtrail.inference import export
from segtrail.models.base import Output, SegmentationModel


class Small(SegmentationModel):
    """Halves and doubles the resolution, so that sizes must be even."""

    size_divisor = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        return Output(F.interpolate(self.up(self.down(image).relu()), scale_factor=2.0, mode="bilinear"))


class WithEdges(Small):
    """Adds its derived input to one class."""

    derived: Mapping = {"edges": lambda image, mask, num_classes, ignore_index: image[..., 0] // 128}

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        logits = super().segment(image).logits
        return Output(torch.cat([logits[:, :1] + derived["edges"][:, None], logits[:, 1:]], 1))


class OfOneSize(Small):
    """Asks for its input's size in a way that cannot be captured for all."""

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        if image.shape[-1] != 70:
            raise ValueError("only made for 70 columns")
        return super().segment(image)


def exporting(monkeypatch: pytest.MonkeyPatch, model: SegmentationModel, *arguments: str) -> int:
    """Runs the command with a model in the place of a checkpoint's."""
    module = SimpleNamespace(
        model=model, class_names=("a", "b", "c", "d"), palette=np.zeros((4, 3), np.uint8)
    )
    loaded = SimpleNamespace(module=module, config=SimpleNamespace(num_classes=4))
    monkeypatch.setattr(export, "load_run", lambda checkpoint: loaded)
    return export.main(["checkpoint", *arguments])


@pytest.mark.parametrize("result", export.RESULTS)
def test_captured_program_equals_torch_at_other_sizes(
    result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = Small().eval(), tmp_path / "folder" / "model.pt2"
    assert exporting(monkeypatch, model, "--output", str(path), "--result", result) == 0
    assert f"(B, 3, H, W) uint8, H and W multiples of 2 -> {result}" in capsys.readouterr().out
    facts = {"class_names": ""}
    program = torch.export.load(path, extra_files=facts).module()
    assert facts["class_names"] == '["a", "b", "c", "d"]'
    image = torch.randint(0, 256, (3, 3, 10, 34), dtype=torch.uint8)
    pixels = image.float() / 255
    normalized = (pixels - torch.tensor(model.mean).view(3, 1, 1)) / torch.tensor(model.std).view(3, 1, 1)
    logits = model(normalized).logits
    expected = {"logits": logits, "probabilities": logits.softmax(1), "classes": logits.argmax(1)}[result]
    torch.testing.assert_close(program(image), expected, atol=1e-5, rtol=0)


def test_onnx_equals_torch_with_derived_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    model = WithEdges().eval()
    assert exporting(monkeypatch, model, "--output", str(path)) == 0
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    assert [entry.name for entry in session.get_inputs()] == ["image", "edges"]
    assert session.get_modelmeta().custom_metadata_map["class_names"] == '["a", "b", "c", "d"]'
    inputs = export.example_inputs(model, 4, 22, 18, batch=3)
    found = export.run_onnx(path, inputs)
    torch.testing.assert_close(found, export.RawImageModel(model, "logits", True)(*inputs), atol=1e-4, rtol=0)


def test_one_size_where_not_all_can_be_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "model.pt2")]
    with pytest.raises(export.ExportError, match="cannot capture OfOneSize.*--size HEIGHT WIDTH"):
        exporting(monkeypatch, OfOneSize().eval(), *output)
    assert exporting(monkeypatch, OfOneSize().eval(), *output, "--size", "31", "69") == 0  # padded to 32 x 70
    assert "image (B, 3, 31, 69) uint8 -> logits" in capsys.readouterr().out


def test_difference_beyond_the_tolerance_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "check", lambda *arguments: 0.5)
    with pytest.raises(export.ExportError, match=r"differs from torch by 5\.0e-01, more than 0\.0001"):
        exporting(monkeypatch, Small().eval(), "--output", str(tmp_path / "model.pt2"))


def test_other_formats_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(export.ExportError, match=r"model\.h5: name the file \.onnx"):
        exporting(monkeypatch, Small(), "--output", "model.h5")
