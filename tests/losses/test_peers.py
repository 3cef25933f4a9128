"""Agreement with other libraries where they are right, and each of their known bugs that ours has not.

smp is asked. MONAI 1.6.1 and kornia 0.9.0 are not needed: what they gave for ``batch()`` is written here;
``benchmarks/losses.py`` asks them again.
"""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrail.losses.base import Loss
from segtrail.losses.boundary import BoundaryLoss
from segtrail.losses.cross_entropy import CrossEntropyLoss
from segtrail.losses.dice import DiceLoss
from segtrail.losses.distance_ce import DistanceCrossEntropyLoss
from segtrail.losses.focal import FocalLoss
from segtrail.losses.generalized_dice import GeneralizedDiceLoss
from segtrail.losses.hausdorff import HausdorffLoss
from segtrail.losses.hausdorff_er import HausdorffERLoss
from segtrail.losses.jaccard import JaccardLoss
from segtrail.losses.lovasz import LovaszLoss
from segtrail.losses.lovasz_hinge import LovaszHingeLoss
from segtrail.losses.mcc import MCCLoss
from segtrail.losses.tversky import TverskyLoss
from segtrail.losses.weighted_ce import WeightedCrossEntropyLoss
from segtrail.losses.weighted_sum import WeightedSum


def batch() -> tuple[Tensor, Tensor]:
    """(2, 4, 12, 10) logits and labels without void; classes 2 and 3 are each in one image only."""
    i = torch.arange(2 * 4 * 12 * 10, dtype=torch.float64)
    logits = (3 * torch.sin(1.7 * i) + torch.cos(0.37 * i)).view(2, 4, 12, 10)
    b, row, column = torch.meshgrid(
        torch.arange(2), torch.arange(12) // 3, torch.arange(10) // 4, indexing="ij"
    )
    target = (3 * b + 2 * row + column * column) % 3
    target[1] = torch.where(target[1] == 2, 3, target[1])
    return logits.float(), target


def foreground(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0][:, :1], (batch[1] > 0).long()


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        pytest.param(DiceLoss(), 0.7678356766700745, id="monai DiceLoss"),
        pytest.param(DiceLoss(squared=True), 0.6941457390785217, id="monai DiceLoss squared_pred"),
        pytest.param(GeneralizedDiceLoss(per_image=True, absent="count"), 0.7773032784461975, id="monai GDL"),
        pytest.param(FocalLoss(), 2.4706857204437256, id="monai and kornia focal, times C"),
        pytest.param(BoundaryLoss(), 0.24603129923343658, id="monai BoundaryLoss"),
        pytest.param(HausdorffLoss(), 1.2115745544433594, id="monai HausdorffDTLoss"),
        pytest.param(TverskyLoss(), 0.7657510042190552, id="monai TverskyLoss"),
        pytest.param(
            WeightedSum({"ce": CrossEntropyLoss(), "dice": DiceLoss()}), 3.552896022796631, id="monai DiceCE"
        ),
        pytest.param(DiceLoss(per_image=True), 0.7186439633369446, id="kornia dice macro"),
        pytest.param(TverskyLoss(per_image=True), 0.7331594824790955, id="kornia tversky"),
        pytest.param(LovaszLoss(per_image=True, absent="count"), 0.795071005821228, id="kornia Lovász"),
        pytest.param(HausdorffERLoss(), 0.09917687624692917, id="kornia HausdorffER"),
    ],
)
def test_stored_values(loss: Loss, wanted: float) -> None:
    assert loss(*batch()).item() == pytest.approx(wanted, rel=1e-5)


def test_stored_binary_values() -> None:
    logits, target = foreground(batch())
    assert MCCLoss()(logits, target).item() == pytest.approx(0.9808165431022644, rel=1e-5)
    assert LovaszHingeLoss()(logits, target).item() == pytest.approx(1.887252926826477, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "peer"),
    [
        (DiceLoss(), smp.losses.DiceLoss("multiclass")),
        (JaccardLoss(), smp.losses.JaccardLoss("multiclass")),
        (TverskyLoss(), smp.losses.TverskyLoss("multiclass", alpha=0.3, beta=0.7)),
        (LovaszLoss(), smp.losses.LovaszLoss("multiclass")),
        (LovaszLoss(per_image=True), smp.losses.LovaszLoss("multiclass", per_image=True)),
        (CrossEntropyLoss(), smp.losses.SoftCrossEntropyLoss(smooth_factor=0.0)),
    ],
    ids=str,
)
def test_smp_multi_class(loss: Loss, peer: torch.nn.Module) -> None:
    logits, target = batch()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value, wanted = loss(ours, target), peer(theirs, target)
    value.backward()
    wanted.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "peer"),
    [
        (DiceLoss(), smp.losses.DiceLoss("binary")),
        (JaccardLoss(), smp.losses.JaccardLoss("binary")),
        (FocalLoss(), smp.losses.FocalLoss("binary")),
        (LovaszHingeLoss(per_image=False), smp.losses.LovaszLoss("binary")),
        (CrossEntropyLoss(), smp.losses.SoftBCEWithLogitsLoss()),
    ],
    ids=str,
)
def test_smp_binary(loss: Loss, peer: torch.nn.Module) -> None:
    logits, target = foreground(batch())
    wanted = peer(logits, target[:, None].float())
    assert loss(logits, target).item() == pytest.approx(wanted.item(), rel=1e-5)


class TestBugsOfPeers:
    """One test for each bug that the peers were seen to have."""

    def voided(self) -> tuple[Tensor, Tensor]:
        logits, target = batch()
        target = target.clone()
        target[:, :3] = 255
        return logits, target

    def test_smp_cross_entropy_fails_with_its_defaults(self) -> None:
        assert CrossEntropyLoss()(*batch()).isfinite()

    def test_smp_and_mmseg_divide_by_void_pixels_too(self) -> None:
        logits, target = self.voided()
        wanted = F.cross_entropy(logits, target, ignore_index=255)
        torch.testing.assert_close(CrossEntropyLoss()(logits, target), wanted)

    def test_smp_focal_fails_for_multi_label_with_void(self) -> None:
        logits, _ = batch()
        target = (logits > 1).long()
        target[:, :, :2] = 255
        assert FocalLoss()(logits, target).isfinite()

    def test_smp_focal_is_not_cross_entropy_at_gamma_0(self) -> None:
        logits, target = batch()
        torch.testing.assert_close(FocalLoss(gamma=0)(logits, target), F.cross_entropy(logits, target))

    def test_smp_focal_is_nan_on_void(self) -> None:
        logits, target = batch()
        assert FocalLoss()(logits, torch.full_like(target, 255)) == 0

    def test_smp_dice_overflows_float16(self) -> None:
        logits = torch.zeros(1, 2, 300, 300, dtype=torch.float16)
        logits[:, 0] = 4
        target = torch.zeros(1, 300, 300, dtype=torch.long)
        for loss in (DiceLoss(), JaccardLoss()):
            assert loss(logits, target).item() == pytest.approx(
                loss(logits.double(), target).item(), rel=1e-5
            )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_smp_lovasz_fails_in_half_precision(self, dtype: torch.dtype) -> None:
        logits, target = batch()
        assert LovaszLoss()(logits.to(dtype), target).isfinite()

    @pytest.mark.parametrize("loss", [LovaszLoss(), LovaszHingeLoss(), LovaszLoss(per_image=True)], ids=str)
    def test_berman_and_smp_lovasz_of_void_is_no_scalar(self, loss: Loss) -> None:
        logits, target = batch()
        value = loss(logits, torch.full_like(target, 255))
        assert value.shape == ()
        assert value == 0

    def test_smp_lovasz_pools_the_labels_of_multi_label(self) -> None:
        logits, _ = batch()
        target = (logits.roll(1) > 0).long()
        channels = [LovaszLoss()(logits[:, c : c + 1], target[:, c]) for c in range(4)]
        torch.testing.assert_close(LovaszLoss()(logits, target), torch.stack(channels).mean())

    def test_smp_dice_shrinks_with_absent_classes(self) -> None:
        logits, target = batch()
        more = torch.cat([logits, torch.full_like(logits, -100)], 1)
        torch.testing.assert_close(DiceLoss()(more, target), DiceLoss()(logits, target))

    def test_smp_binary_dice_learns_nothing_without_foreground(self) -> None:
        logits = torch.ones(1, 1, 4, 4, requires_grad=True)
        DiceLoss(absent="count", smooth=1.0)(logits, torch.zeros(1, 4, 4, dtype=torch.long)).backward()
        assert logits.grad is not None
        assert (logits.grad > 0).all()

    def test_smp_mcc_is_nan_on_logits(self) -> None:
        assert MCCLoss()(*foreground(batch())).isfinite()

    def test_berman_present_read_from_yaml_means_all(self) -> None:
        logits, target = batch()
        more = torch.cat([logits, logits[:, :1]], 1)
        read = "".join(["sk", "ip"])  # equal, but another object
        torch.testing.assert_close(LovaszLoss(absent=read)(more, target), LovaszLoss()(more, target))
        assert LovaszLoss(absent="count")(more, target) != LovaszLoss()(more, target)

    def test_berman_lovasz_fails_on_one_pixel(self) -> None:
        logits, target = batch()
        void = torch.full_like(target, 255)
        void[0, 0, 0] = 1
        wrong = 1 - logits.softmax(1)[0, 1, 0, 0]
        torch.testing.assert_close(LovaszLoss()(logits, void), wrong)

    def test_segloss_distance_ce_is_plain_cross_entropy(self) -> None:
        logits, target = batch()
        assert DistanceCrossEntropyLoss()(logits, target) > 1.1 * F.cross_entropy(logits, target)

    def test_segloss_distance_ce_is_nan_for_one_class(self) -> None:
        logits, target = batch()
        one = torch.zeros_like(target)
        torch.testing.assert_close(DistanceCrossEntropyLoss()(logits, one), F.cross_entropy(logits, one))

    @pytest.mark.parametrize("loss", [HausdorffLoss(), HausdorffERLoss()], ids=str)
    def test_segloss_hausdorff_cannot_train(self, loss: Loss) -> None:
        logits, target = batch()
        leaf = logits.requires_grad_()
        loss(leaf, target).backward()
        assert leaf.grad is not None
        assert (leaf.grad != 0).any()

    def test_segloss_weighted_ce_ignores_its_weights(self) -> None:
        logits, target = batch()
        weights = [0.1, 1.0, 5.0, 2.0]
        value = WeightedCrossEntropyLoss(4, weights)(logits, target)
        torch.testing.assert_close(value, F.cross_entropy(logits, target, weight=torch.tensor(weights)))

    def test_liviaets_generalized_dice_saturates_with_an_absent_class(self) -> None:
        _, target = batch()
        right = F.one_hot(target, 4).movedim(-1, 1).float() * 20
        more = torch.cat([right, torch.full_like(right[:, :1], -5)], 1)
        for absent in ("skip", "count"):
            assert GeneralizedDiceLoss(absent=absent)(more, target) < 0.01

    def test_boundary_maps_of_one_class_are_garbage(self) -> None:
        logits, target = batch()
        assert BoundaryLoss()(logits, torch.ones_like(target)) == 0

    def test_monai_focal_changes_its_scale_with_ignore_index(self) -> None:
        torch.testing.assert_close(FocalLoss(ignore_index=None)(*batch()), FocalLoss()(*batch()))

    @pytest.mark.parametrize(
        "loss", [HausdorffLoss(), BoundaryLoss(), GeneralizedDiceLoss(), HausdorffERLoss()], ids=str
    )
    def test_monai_and_kornia_know_no_void_here(self, loss: Loss) -> None:
        logits, target = self.voided()
        cropped = loss(logits[:, :, 3:], target[:, 3:])
        torch.testing.assert_close(loss(logits, target), cropped)

    def test_monai_dice_counts_absent_classes_as_wrong(self) -> None:
        _, target = batch()
        right = F.one_hot(target, 4).movedim(-1, 1).float() * 40
        assert DiceLoss(per_image=True)(right, target) < 1e-6

    def test_kornia_lovasz_counts_absent_classes(self) -> None:
        logits, target = batch()
        more = torch.cat([logits, torch.full_like(logits, -100)], 1)
        torch.testing.assert_close(LovaszLoss()(more, target), LovaszLoss()(logits, target))

    def test_kornia_hausdorff_takes_int64_labels_only(self) -> None:
        logits, target = batch()
        torch.testing.assert_close(
            HausdorffERLoss()(logits, target.to(torch.uint8)), HausdorffERLoss()(logits, target)
        )
