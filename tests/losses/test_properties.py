"""What has to hold of every loss that a user can choose by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from segtrail.losses.base import Loss
from segtrail.losses.cross_entropy import CrossEntropyLoss
from segtrail.losses.weighted_sum import WeightedSum
from tests.losses import cases

CONF = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
CHANNELS = (1, 4)
COUNTS = torch.tensor([400.0, 100.0, 50.0, 25.0], dtype=torch.float64)


def make(name: str, channels: int, **changes: object) -> Loss:
    config = OmegaConf.create({"ignore_index": cases.VOID, "num_classes": channels})
    config.loss = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), changes)
    loss = instantiate(config.loss)
    if loss.class_counts_wanted:
        loss.set_class_counts(COUNTS[: max(2, channels)])
    return loss


def value_and_gradient(
    loss: Loss, logits: Tensor, target: Tensor, **derived: Tensor
) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target, **derived)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def test_the_named_losses_are_there() -> None:
    assert set(NAMES) >= {
        *("cross_entropy", "weighted_ce", "focal", "dice", "generalized_dice", "squared_dice"),
        *("log_cosh_dice", "jaccard", "tversky", "focal_tversky", "mcc", "lovasz", "lovasz_hinge", "topk"),
        *("ohem", "distance_ce", "sensitivity_specificity", "boundary", "hausdorff", "hausdorff_er"),
        *("iou_balanced", "ce_dice", "ce_lovasz", "dice_focal", "dice_topk"),
    }


@pytest.fixture(params=[(name, channels) for name in NAMES for channels in CHANNELS], ids=str)
def chosen(request: pytest.FixtureRequest) -> tuple[str, Loss, Tensor, Tensor]:
    name, channels = request.param
    logits, target = cases.batch(f"random-{channels}")
    return name, make(name, channels), logits, target


def test_does_not_depend_on_order_or_side(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    value, gradient = value_and_gradient(loss, logits, target)
    for change in (
        lambda x: x.flip(0),
        lambda x: x.flip(-1),
        lambda x: x.flip(-2),
        lambda x: x.transpose(-1, -2),
    ):
        other, other_gradient = value_and_gradient(loss, change(logits), change(target))
        torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(other_gradient, change(gradient), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_permutes_with_the_classes(name: str) -> None:
    logits, target = cases.batch("random-4")
    order = torch.tensor([2, 0, 3, 1])
    inverse = order.argsort()
    renamed = torch.where(target == cases.VOID, cases.VOID, inverse[target.clamp(max=3)])
    loss, other = make(name, 4), make(name, 4)
    if loss.class_counts_wanted:
        other.set_class_counts(COUNTS[order])
    value, gradient = value_and_gradient(loss, logits, target)
    permuted, permuted_gradient = value_and_gradient(other, logits[:, order], renamed)
    torch.testing.assert_close(permuted, value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(permuted_gradient, gradient[:, order], rtol=1e-5, atol=1e-9)


def test_void_changes_nothing(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    value, gradient = value_and_gradient(loss, logits, target)
    void = (target == cases.VOID).unsqueeze(1).expand_as(logits)
    assert void.any()
    assert (gradient[void] == 0).all()
    elsewhere = torch.where(void, 100 * torch.randn_like(logits), logits)
    other, other_gradient = value_and_gradient(loss, elsewhere, target)
    torch.testing.assert_close(other, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-7, atol=1e-12)


def test_nothing_but_void_is_zero(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    for dtype in (torch.float64, torch.float16):
        value, gradient = value_and_gradient(loss, logits.to(dtype), torch.full_like(target, cases.VOID))
        assert value.item() == 0
        assert (gradient == 0).all()


def test_a_perfect_prediction_is_the_minimum(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    own = cases.one_hot(target, logits.shape[1]) if logits.shape[1] > 1 else (target == 1).double()[:, None]
    toward = 2 * own - 1
    perfect = loss(100 * toward, target)
    for other in (logits, logits + toward, 5 * toward, -5 * toward, 0 * toward, -100 * toward):
        assert perfect <= loss(other, target) + 1e-12
    assert loss(5 * toward, target) < loss(-5 * toward, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extreme_logits_in_half_precision(
    chosen: tuple[str, Loss, Tensor, Tensor], dtype: torch.dtype
) -> None:
    _, loss, logits, target = chosen
    extreme = (1e4 * logits.sign()).to(dtype)
    for scores in (extreme, extreme.roll(1, -1)):
        value, gradient = value_and_gradient(loss, scores, target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()


def test_maps_from_the_loader_change_nothing(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    channels = logits.shape[1]
    maps = {
        key: torch.stack(
            [
                torch.from_numpy(derive(None, mask.numpy().astype("uint8"), channels, cases.VOID))
                for mask in target
            ]
        )
        for key, derive in loss.derived.items()
    }
    alone, gradient = value_and_gradient(loss, logits, target)
    given, other = value_and_gradient(loss, logits, target, **maps)
    torch.testing.assert_close(given, alone, rtol=1e-9, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=0)


def test_parts_sum_to_the_loss(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    parts = loss.parts(logits, target)
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), loss(logits, target))
    if isinstance(loss, WeightedSum):
        assert len(parts) == 2


def test_layout_and_a_second_backward(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    value, gradient = value_and_gradient(loss, logits, target)
    leaf = logits.to(memory_format=torch.channels_last).clone().requires_grad_()
    again = loss(leaf, target)
    torch.testing.assert_close(again.detach(), value)
    for _ in range(2):
        (twice,) = torch.autograd.grad(again, leaf, retain_graph=True)
        torch.testing.assert_close(twice, gradient)


def test_autocast_leaves_it_alone(chosen: tuple[str, Loss, Tensor, Tensor]) -> None:
    _, loss, logits, target = chosen
    half = logits.bfloat16()
    wanted = loss(half.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(half, target), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_many_pixels_in_half_precision(name: str) -> None:
    """More pixels of one class than float16 can count."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 264, 264, generator=generator)
    target = torch.zeros(1, 264, 264, dtype=torch.int64)
    target[:, :8] = 1
    loss = make(name, 2)
    value, gradient = value_and_gradient(loss, logits.half(), target)
    wanted = loss(logits.half().double(), target)
    assert value.item() == pytest.approx(wanted.item(), rel=2e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_multi_label(name: str) -> None:
    logits, target = cases.batch("random-3m")
    loss = make(name, 2 if name == "weighted_ce" else 3)
    value, gradient = value_and_gradient(loss, logits, target)
    assert value.isfinite()
    assert (gradient[target == cases.VOID] == 0).all()
    assert (gradient[target != cases.VOID] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_state_is_in_buffers(name: str) -> None:
    loss = make(name, 4)
    tensors = {id(x) for x in loss.buffers()}
    for module in loss.modules():
        for key, value in vars(module).items():
            assert not isinstance(value, Tensor), f"{key} would stay behind when the loss moves"
    assert all(id(x) in tensors for x in loss.state_dict(keep_vars=True).values())
    make(name, 4).load_state_dict(loss.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_compiles(name: str) -> None:
    logits, target = cases.batch("random-4")
    loss = make(name, 4)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager")
    value, gradient = value_and_gradient(loss, logits, target)
    other, other_gradient = value_and_gradient(compiled, logits, target)
    torch.testing.assert_close(other, value)
    torch.testing.assert_close(other_gradient, gradient)


class TestMessages:
    def test_label_outside_the_classes(self) -> None:
        with pytest.raises(ValueError, match="label 7 in the target, but the logits stand for classes 0..3"):
            CrossEntropyLoss()(torch.zeros(1, 4, 2, 2), torch.full((1, 2, 2), 7))
        with pytest.raises(ValueError, match="label -1 in the target"):
            CrossEntropyLoss()(torch.zeros(1, 4, 2, 2), torch.full((1, 2, 2), -1))

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match="does not fit logits"):
            CrossEntropyLoss()(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 3, dtype=torch.long))
        with pytest.raises(ValueError, match=r"give logits \(B, C, H, W\)"):
            CrossEntropyLoss()(torch.zeros(4, 2, 2), torch.zeros(2, 2, dtype=torch.long))

    @pytest.mark.parametrize(
        ("name", "key", "value"),
        [
            ("cross_entropy", "label_smoothing", 1.5),
            ("focal", "gamma", -1),
            ("dice", "absent", "ignore"),
            ("dice", "smooth", -1),
            ("generalized_dice", "power", -1),
            ("tversky", "alpha", -1),
            ("lovasz", "absent", "all"),
            ("lovasz_hinge", "absent", "all"),
            ("topk", "k", 0),
            ("ohem", "threshold", 0),
            ("sensitivity_specificity", "sensitivity_weight", 2),
            ("iou_balanced", "eta", -1),
            ("weighted_ce", "weights", "median"),
            ("weighted_ce", "weights", [1.0]),
        ],
    )
    def test_values_that_make_no_sense(self, name: str, key: str, value: object) -> None:
        with pytest.raises(Exception, match="give") as error:
            make(name, 4, **{key: value})
        assert "ValueError" in str(error.value) or isinstance(error.value, ValueError)


@pytest.mark.parametrize("name", NAMES)
def test_float32_bears_many_pixels(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (1, 8, 16), generator=generator)
    target = target.repeat_interleave(64, 1).repeat_interleave(64, 2)
    logits = torch.randn(1, 4, 512, 1024, generator=generator)
    loss = make(name, 4)
    with torch.no_grad():
        torch.testing.assert_close(
            loss(logits, target).double(), loss(logits.double(), target).double(), rtol=1e-5, atol=0
        )
