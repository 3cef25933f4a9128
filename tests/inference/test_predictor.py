from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segtrail.inference.predictor import SemanticPredictor, class_probabilities
from segtrail.inference.windows import blend_weights, window_starts
from segtrail.models.base import ImageSizeError, Output, SegmentationModel


class Pointwise(SegmentationModel):
    """Looks at one pixel at a time, so that windows and flips must not change anything."""

    size_divisor = 8

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, classes, 1))

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        return Output(3 * self.layers(image))


class Local(Pointwise):
    """Sees a neighborhood, and not the same one to both sides."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(classes)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1)
        )


class WithDerived(Pointwise):
    """Answers with its derived input, which is the image's red channel."""

    derived: Mapping = {
        "red": lambda image, mask, num_classes, ignore_index: image[..., 0].astype(np.float32)
    }

    def segment(self, image: Tensor, **derived: Tensor) -> Output:
        red = derived["red"][:, None] / 255
        return Output(torch.cat([red, -red], 1))


def picture(height: int = 37, width: int = 53, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def whole(model: SegmentationModel, image: np.ndarray) -> Tensor:
    """The model's own answer, normalized by hand."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.mean, model.std))
    with torch.no_grad():
        return class_probabilities(model.eval()((tensor - mean) / std).logits)[0]


def test_without_options_it_is_the_model_on_the_whole_image() -> None:
    model, image = Local(), picture()
    prediction = SemanticPredictor(model, 4)(image)
    expected = whole(model, image)
    np.testing.assert_array_equal(prediction.label_map, expected.argmax(0).numpy())
    np.testing.assert_allclose(prediction.confidence, expected.amax(0).numpy(), atol=1e-5)
    assert prediction.label_map.dtype == np.uint8


@pytest.mark.parametrize("window", [53, 64, 1000])
def test_window_that_covers_the_image_changes_nothing(window: int) -> None:
    model, image = Local(), picture()
    predictor = SemanticPredictor(model, 4, window=window)
    assert torch.equal(predictor.probabilities(image), SemanticPredictor(model, 4).probabilities(image))


@pytest.mark.parametrize("blend", ["gaussian", "linear"])
@pytest.mark.parametrize(
    "options", [{"window": 16}, {"window": 40, "overlap": 0.1}, {"window": 8, "overlap": 0.9}]
)
def test_windows_of_a_pointwise_model_are_seamless(blend: str, options: dict[str, float]) -> None:
    model, image = Pointwise(), picture()
    found = SemanticPredictor(model, 4, blend=blend, batch_size=3, **options).probabilities(image)
    torch.testing.assert_close(found, whole(model, image), atol=1e-5, rtol=0)


def test_windows_blend_where_they_overlap() -> None:
    model, image = Local(), picture(64, 64)
    expected = whole(model, image)
    found = SemanticPredictor(model, 4, window=32, overlap=0.5).probabilities(image)
    torch.testing.assert_close(found.sum(0), torch.ones(64, 64))
    assert (found - expected).abs().mean() < 0.02
    abrupt = SemanticPredictor(model, 4, window=32, overlap=0.0).probabilities(image)
    assert (found - expected).abs().mean() < (abrupt - expected).abs().mean()


@pytest.mark.parametrize("flips", [["horizontal"], ["vertical"], ["horizontal", "vertical"]])
def test_flips_average_over_mirrored_images(flips: list[str]) -> None:
    model, image = Local(), picture()
    views = [whole(model, image)]
    for axes in {"horizontal": [1]}, {"vertical": [0]}, {"horizontal": [1], "vertical": [0]}:
        if set(axes) <= set(flips):
            mirrored = [axis for part in axes.values() for axis in part]
            turned = whole(model, np.ascontiguousarray(np.flip(image, mirrored)))
            views.append(turned.flip([axis + 1 for axis in mirrored]))
    found = SemanticPredictor(model, 4, flips=flips).probabilities(image)
    torch.testing.assert_close(found, torch.stack(views).mean(0), atol=1e-5, rtol=0)
    mirror = np.ascontiguousarray(image[:, ::-1])
    if "horizontal" in flips:  # the result mirrors with the image
        again = SemanticPredictor(model, 4, flips=flips).probabilities(mirror)
        torch.testing.assert_close(again.flip(2), found, atol=1e-5, rtol=0)


def test_scales_come_back_at_the_image_size() -> None:
    image = np.full((37, 53, 3), (10, 200, 90), np.uint8)
    model = Pointwise()
    found = SemanticPredictor(model, 4, scales=[0.5, 1.0, 1.7], window=16).probabilities(image)
    torch.testing.assert_close(found, whole(model, image), atol=1e-5, rtol=0)


def test_scales_stop_at_the_stride() -> None:
    image, sizes = picture(10, 30), []

    class Watched(Pointwise):
        def segment(self, image: Tensor, **derived: Tensor) -> Output:
            sizes.append(tuple(image.shape[2:]))
            return super().segment(image)

    found = SemanticPredictor(Watched(), 4, scales=[0.5]).probabilities(image)
    assert sizes == [(8, 16)]  # the width is padded from 15
    assert found.shape == (4, 10, 30)


@pytest.mark.parametrize(("height", "width"), [(7, 53), (37, 7)])
def test_image_smaller_than_the_stride_is_one_line(height: int, width: int) -> None:
    with pytest.raises(ImageSizeError, match=f"{height}x{width} pixels is smaller .* stride of 8"):
        SemanticPredictor(Pointwise(), 4)(picture(height, width))
    assert SemanticPredictor(Pointwise(), 4)(picture(8, 8)).label_map.shape == (8, 8)


def test_one_logit_gives_two_classes() -> None:
    model, image = Pointwise(classes=1), picture()
    prediction = SemanticPredictor(model, 1)(image)
    with torch.no_grad():
        foreground = whole(model, image)[1]
    np.testing.assert_array_equal(prediction.label_map, (foreground > 0.5).numpy())
    assert prediction.confidence.min() >= 0.5


def test_derived_inputs_follow_every_view() -> None:
    image = picture()
    plain = SemanticPredictor(WithDerived(), 2).probabilities(image)
    expected = torch.sigmoid(torch.from_numpy(image[..., 0]) / 255 * 2)
    torch.testing.assert_close(plain[0], expected, atol=1e-5, rtol=0)
    views = SemanticPredictor(WithDerived(), 2, window=20, flips=["horizontal", "vertical"]).probabilities(
        image
    )
    torch.testing.assert_close(views, plain, atol=1e-5, rtol=0)


def test_postprocess_sees_the_image_and_the_averaged_probabilities() -> None:
    image, seen = picture(), []

    def postprocess(pixels: Tensor, probabilities: Tensor) -> Tensor:
        seen.append((pixels, probabilities))
        return probabilities.flip(1)

    model = Local()
    found = SemanticPredictor(model, 4, flips=["horizontal"], postprocess=postprocess).probabilities(image)
    plain = SemanticPredictor(model, 4, flips=["horizontal"]).probabilities(image)
    (pixels, probabilities), *rest = seen
    assert not rest
    np.testing.assert_array_equal(pixels[0].permute(1, 2, 0).numpy(), image)
    torch.testing.assert_close(probabilities[0], plain)
    torch.testing.assert_close(found, plain.flip(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window: a number of pixels or null, got 0"),
        ({"window": 7}, "window: at least the model's stride of 8 pixels, got 7"),
        ({"overlap": 1.0}, "overlap: a share of the window"),
        ({"blend": "cosine"}, "blend: one of gaussian, linear, got 'cosine'"),
        ({"flips": ["diagonal"]}, r"flips: a list of horizontal, vertical, got \['diagonal'\]"),
        ({"flips": "horizontal"}, "flips: a list of horizontal, vertical"),
        ({"scales": []}, "scales: a list of positive numbers"),
        ({"batch_size": 0}, "batch_size: at least 1, got 0"),
    ],
)
def test_impossible_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticPredictor(Pointwise(), 4, **options)


@pytest.mark.parametrize("length", [1, 7, 16, 17, 100])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.95])
def test_windows_cover_a_side_and_overlap_enough(length: int, overlap: float) -> None:
    window = min(16, length)
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - window
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, round(window * (1 - overlap)))).all()


@pytest.mark.parametrize("blend", ["gaussian", "linear"])
def test_blend_weights_are_positive_symmetric_and_highest_in_the_middle(blend: str) -> None:
    weights = blend_weights(9, 12, blend)
    assert weights.shape == (9, 12)
    assert weights.min() > 0
    torch.testing.assert_close(weights, weights.flip(0).flip(1))
    assert weights[4, 5] == weights.max()


@pytest.mark.gpu
def test_gpu_equals_cpu() -> None:
    image = picture()
    on_cpu = SemanticPredictor(Local(), 4, window=16, device="cpu").probabilities(image)
    on_gpu = SemanticPredictor(Local(), 4, window=16, device="cuda").probabilities(image)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-3, rtol=0)
