"""The published configurations: parameters, multiply-accumulates, shapes, and tensor names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segtrail.inference.model_table import count_macs
from segtrail.models import fastfcn_names, gscnn_names
from segtrail.models.checkpoint import rename
from segtrail.models.context_encoding import Encoding
from segtrail.models.deeplab_v1 import DeepLabV1
from segtrail.models.deeplab_v2 import DeepLabV2
from segtrail.models.fastfcn import FastFCN
from segtrail.models.gscnn import GatedSCNN
from segtrail.models.jpu import JPU, JPUX, DepthwiseConv, SeparableBranch
from segtrail.models.unet_original import UNetOriginal


def parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def fastfcn(head: str, depth: int, upsampling: str) -> FastFCN:
    with torch.device("meta"):
        return FastFCN(59, head, f"tu-resnet{depth}s", upsampling=upsampling, ignore_index=-1)


@pytest.mark.parametrize(
    ("head", "depth", "dilated", "jpu"),  # millions, 59 classes
    [
        ("fcn", 50, 35.5, 55.2),
        ("fcn", 101, 54.5, 74.2),
        ("encnet", 50, 36.1, 47.4),
        ("psp", 50, 49.1, 68.9),
        ("aspp", 50, 42.2, 61.9),
    ],
)
def test_fastfcn_parameters(head: str, depth: int, dilated: float, jpu: float) -> None:
    for upsampling, expected in (("none", dilated), ("jpu", jpu)):
        assert parameters(fastfcn(head, depth, upsampling)) / 1e6 == pytest.approx(expected, abs=0.06)


def test_fastfcn_macs() -> None:
    """In 10^9 at 512 x 512 with the auxiliary head."""
    for upsampling, expected in (("none", 155), ("jpu", 100)):
        model = FastFCN(59, "fcn", "tu-resnet50s", upsampling=upsampling)
        assert round(count_macs(model.train(), 512) / 1e9) == expected


def test_fastfcn_shapes() -> None:
    model = FastFCN(59, "fcn", "tu-resnet50s").eval()
    assert parameters(model.upsampling) == 19_735_552
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda m, i, o, name=name: shapes.update({name: tuple(o.shape)} if torch.is_tensor(o) else {})
        )
    with torch.no_grad():
        features = model.encoder(torch.zeros(1, 3, 96, 64))
        model(torch.zeros(1, 3, 96, 64))
    assert [tuple(f.shape[1:]) for f in features] == [
        (3, 96, 64),
        (128, 48, 32),  # three 3x3 convolutions: 64, 64, 128
        (256, 24, 16),
        (512, 12, 8),
        (1024, 6, 4),
        (2048, 3, 2),
    ]
    assert [shapes[f"upsampling.reduce.{i}"] for i in range(3)] == [
        (1, 512, 12, 8),
        (1, 512, 6, 4),
        (1, 512, 3, 2),
    ]
    assert shapes["upsampling.branches.3.0"] == (1, 1536, 12, 8)
    assert shapes["upsampling"] == (1, 2048, 12, 8)
    assert shapes["head.layers.0"] == (1, 512, 12, 8)


def test_gated_scnn_parameters() -> None:
    with torch.device("meta"):
        model = GatedSCNN(19)
    assert parameters(model) / 1e6 == pytest.approx(137.3, abs=0.05)
    assert parameters(model.encoder) / 1e6 == pytest.approx(105.1, abs=0.05)
    assert parameters(model.pyramid, model.edge_branch) / 1e6 == pytest.approx(30.4, abs=0.05)
    decoder = parameters(model.reduce_coarse, model.reduce_fine, model.decode)
    assert decoder / 1e6 == pytest.approx(1.7, abs=0.05)
    assert parameters(model.shape, model.blend) / 1e3 == pytest.approx(108, abs=0.5)
    features = model.encoder(torch.zeros(1, 3, 64, 96, device="meta"))
    assert [tuple(f.shape[1:]) for f in features[1:]] == [
        (64, 64, 96),
        (128, 32, 48),
        (256, 16, 24),
        (512, 8, 12),
        (4096, 8, 12),
    ]


def test_original_unet() -> None:
    with torch.device("meta"):
        assert parameters(UNetOriginal(2, 1)) == 31_030_658
        model = UNetOriginal(21, 3)
    assert parameters(model) == 31_033_045
    sizes = []
    for layer in (*model.down, *model.merge):
        layer.register_forward_hook(lambda m, i, o: sizes.append((o.shape[1], o.shape[2])))
    assert model.network(torch.zeros(1, 3, 572, 572, device="meta")).shape[-2:] == (388, 388)
    assert sizes == [
        (64, 568),
        (128, 280),
        (256, 136),
        (512, 64),
        (1024, 28),
        (512, 52),
        (256, 100),
        (128, 196),
        (64, 388),
    ]


def test_deeplab_parameters() -> None:
    with torch.device("meta"):
        assert parameters(DeepLabV1(21)) / 1e6 == pytest.approx(20.5, abs=0.05)
        v2 = DeepLabV2(21)
    assert parameters(v2.pyramid) == 4 * (2048 * 9 * 21 + 21)


def test_valid_padding_mirrors_the_border() -> None:
    model = UNetOriginal(2, 1, base_channels=4)
    image = torch.randn(1, 1, 128, 128)
    rows = model._mirrored(128, image.device)
    assert len(rows) % 16 == 124 % 16
    expected = nn.functional.pad(image, (0, 0, 92, 92), mode="reflect")
    assert torch.equal(image[..., rows, :][..., : 128 + 2 * 92, :], expected)
    model.eval()
    with torch.no_grad():  # away from the border a tile gives what the whole image gives
        whole = model(image).logits[..., 48:96, 48:96]
        padded = nn.functional.pad(image, (92, 92, 92, 92), mode="reflect")
        window = padded[..., 48 : 48 + 236, 48 : 48 + 236]
        torch.testing.assert_close(model.network(window)[..., :48, :48], whole, rtol=1e-4, atol=1e-5)


def test_encoding_equals_its_definition() -> None:
    torch.manual_seed(0)
    layer = Encoding(12, 5).double()
    x = torch.randn(2, 12, 4, 6, dtype=torch.float64)
    flat = x.flatten(2).transpose(1, 2)[:, :, None]  # (B, N, 1, D)
    residual = flat - layer.codewords
    weight = torch.softmax(layer.scale * residual.square().sum(-1), dim=2)
    expected = (weight[..., None] * residual).sum(1)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-4)


def test_depthwise_padding_changes_nothing() -> None:
    layer = DepthwiseConv(6, 8)
    x = torch.randn(1, 6, 20, 24)
    expected = nn.functional.conv2d(x, layer.weight, padding=8, dilation=8, groups=6)
    torch.testing.assert_close(layer(x), expected)


def test_the_folded_norm_of_a_branch_changes_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 20, 24)
    for norm in (nn.BatchNorm2d, lambda channels: nn.GroupNorm(2, channels)):
        branch = SeparableBranch(6, 4, 8, norm)
        for parameter in branch.parameters():
            nn.init.normal_(parameter)
        torch.testing.assert_close(branch(x), nn.Sequential.forward(branch, x))  # batch statistics
        branch.eval()
        outputs = branch(x), nn.Sequential.forward(branch, x)
        torch.testing.assert_close(*outputs)
        gradients = [torch.autograd.grad(y.square().sum(), list(branch.parameters())) for y in outputs]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def norm(prefix: str) -> list[str]:
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{prefix}.{part}" for part in parts]


def conv_norm(prefix: str, first: int = 0) -> list[str]:
    return [f"{prefix}.{first}.weight", *norm(f"{prefix}.{first + 1}")]


def layer(prefix: str) -> list[str]:
    return [f"{prefix}.weight", f"{prefix}.bias"]


def separable(prefix: str) -> list[str]:
    convolution = [f"{prefix}.0.conv1.weight", *norm(f"{prefix}.0.bn"), f"{prefix}.0.pointwise.weight"]
    return [*convolution, *norm(f"{prefix}.1")]


PUBLISHED_JPU = [n for i in (5, 4, 3) for n in conv_norm(f"jpu.conv{i}")] + [
    n for i in range(1, 5) for n in separable(f"jpu.dilation{i}")
]
PUBLISHED_HEADS = {
    "fcn": [*conv_norm("head.conv5"), *layer("head.conv5.4")],
    "psp": [n for i in range(1, 5) for n in conv_norm(f"head.conv5.0.conv{i}")]
    + [*conv_norm("head.conv5", 1), *layer("head.conv5.5")],
    "aspp": [n for i in range(4) for n in conv_norm(f"head.aspp.b{i}")]
    + [*conv_norm("head.aspp.b4.gap", 1), *conv_norm("head.aspp.project")]
    + [*conv_norm("head.block"), *layer("head.block.4")],
    "encnet": [
        *conv_norm("head.conv5"),
        *conv_norm("head.encmodule.encoding"),
        "head.encmodule.encoding.3.codewords",
        "head.encmodule.encoding.3.scale",
        *norm("head.encmodule.encoding.4"),
        *layer("head.encmodule.fc.0"),
        *layer("head.encmodule.selayer"),
        *layer("head.conv6.1"),
    ],
}


@pytest.mark.parametrize("head", PUBLISHED_HEADS)
def test_reads_published_fastfcn(head: str, tmp_path: Path) -> None:
    """The names and the order of the authors' checkpoints; every tensor gets its place."""
    model = FastFCN(5, head, "tu-resnet14t", jpu_width=64)
    encoder = {f"pretrained.{n.removeprefix('model.')}": t for n, t in model.encoder.state_dict().items()}
    theirs = [
        *PUBLISHED_JPU,
        *PUBLISHED_HEADS[head],
        *conv_norm("auxlayer.conv5"),
        *layer("auxlayer.conv5.4"),
    ]
    own = model.state_dict()
    state: dict[str, Any] = {"pretrained.fc.weight": torch.zeros(3), **encoder}
    for name in theirs:
        ours = rename(name, fastfcn_names.PUBLISHED_NAMES[head])
        assert ours in own, f"{name} became {ours}"
        state[name] = torch.rand(own[ours].shape) if own[ours].is_floating_point() else own[ours]
    file = tmp_path / "published.pth.tar"
    torch.save({"epoch": 80, "state_dict": {f"module.{n}": t for n, t in state.items()}}, file)
    again = FastFCN(5, head, "tu-resnet14t", jpu_width=64, checkpoint=str(file))
    assert torch.equal(again.upsampling.branches[1][2].weight, state["jpu.dilation2.0.pointwise.weight"])
    assert torch.equal(again.upsampling.reduce[2][0].weight, state["jpu.conv5.0.weight"])


def test_reads_published_gated_scnn() -> None:
    """Every tensor of the authors' network has a name that becomes one of ours, each once."""
    blocks = {2: (3, 2), 3: (3, 2), 4: (6, 2), 5: (3, 2), 6: (1, 3), 7: (1, 3)}
    theirs = ["mod1.conv1.weight"]
    for module, (count, convolutions) in blocks.items():
        for block in range(1, count + 1):
            prefix = f"mod{module}.block{block}"
            theirs += norm(f"{prefix}.bn1.0")
            for i in range(1, convolutions + 1):
                theirs += [f"{prefix}.convs.conv{i}.weight"]
                theirs += norm(f"{prefix}.convs.bn{i}.0") if i > 1 else []
            if block == 1:
                theirs += [f"{prefix}.proj_conv.weight"]
    for i in (1, 2, 3):
        for part in (1, 2):
            theirs += [f"res{i}.conv{part}.weight", *norm(f"res{i}.bn{part}")]
        gate = f"gate{i}._gate_conv"
        theirs += [*layer(f"d{i}"), f"gate{i}.weight", *norm(f"{gate}.0"), *norm(f"{gate}.4")]
        theirs += [*layer(f"{gate}.1"), *layer(f"{gate}.3")]
    theirs += [n for i in (3, 4, 7) for n in layer(f"dsn{i}")]
    theirs += ["fuse.weight", "cw.weight", "bot_fine.weight", "bot_aspp.weight"]
    theirs += [n for i in range(4) for n in conv_norm(f"aspp.features.{i}")]
    theirs += [*conv_norm("aspp.img_conv"), *conv_norm("aspp.edge_conv")]
    theirs += [*conv_norm("final_seg"), *conv_norm("final_seg", 3), "final_seg.6.weight"]
    with torch.device("meta"):
        own = GatedSCNN(19).state_dict()
    renamed = [rename(name, gscnn_names.PUBLISHED_NAMES) for name in theirs]
    assert sorted(map(str, renamed)) == sorted(own)
    assert rename("dsn1.weight", gscnn_names.PUBLISHED_NAMES) is None


def test_cascade_needs_full_groups() -> None:
    assert parameters(JPUX((8, 8, 8), 64)) > 0
    assert JPU((8, 8, 8), 16).out_channels == 64
    with pytest.raises(ValueError, match="jpu_width=48 is no multiple of 64"):
        JPUX((8, 8, 8), 48)
    assert JPUX((8, 8, 8), 64)([torch.randn(1, 8, s, s) for s in (8, 4, 2)]).shape == (1, 256, 8, 8)
