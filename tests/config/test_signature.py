import inspect
import sys
from pathlib import Path

import pytest

from segtrail.config.signature import TargetError, signature


def test_parameters_agree_with_inspect_after_import() -> None:
    import albumentations as A
    import pytorch_lightning as pl
    import torch

    from segtrail.losses.focal import FocalLoss

    for target, real in {
        "torch.optim.AdamW": torch.optim.AdamW,
        "torch.optim.SGD": torch.optim.SGD,
        "segtrail.losses.focal.FocalLoss": FocalLoss,
        "pytorch_lightning.callbacks.ModelCheckpoint": pl.callbacks.ModelCheckpoint,
        "albumentations.HorizontalFlip": A.HorizontalFlip,
    }.items():
        found = signature(target)
        assert found is not None, target
        expected = [
            p
            for p in inspect.signature(real).parameters.values()
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        assert list(found.parameters) == [p.name for p in expected], target
        assert [p.required for p in found.parameters.values()] == [p.default is p.empty for p in expected], (
            target
        )


def test_imports_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "explosive.py").write_text("raise SystemExit\ndef thing(a, *, b: int = 3): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = signature("explosive.thing")
    assert found is not None
    assert list(found.parameters) == ["a", "b"]
    assert found.parameters["a"].required
    assert found.parameters["b"].annotation == "int"
    assert "explosive" not in sys.modules


def test_dataclasses_and_inherited_constructors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "shapes_of.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int\n    y: int = 0\n"
        "class Base:\n    def __init__(self, a, b=1): ...\n"
        "class Child(Base):\n    pass\n"
        "class Passing(Base):\n    def __init__(self, c, **kwargs): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(signature("shapes_of.Point").parameters) == ["x", "y"]  # type: ignore[union-attr]
    assert list(signature("shapes_of.Child").parameters) == ["a", "b"]  # type: ignore[union-attr]
    passing = signature("shapes_of.Passing")
    assert passing is not None
    assert set(passing.parameters) == {"a", "b", "c"}
    assert not passing.open


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torch.optim.AdamX", "'torch.optim' has no 'AdamX'"),
        ("torch.optm.AdamW", "no module 'optm' in 'torch'"),
        ("nowhere.Thing", "no module 'nowhere'"),
        ("Thing", "not a dotted path"),
    ],
)
def test_wrong_paths_are_told(target: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        signature(target)


def test_every_target_of_the_shipped_config_resolves() -> None:
    conf = Path(__file__).resolve().parents[2] / "conf"
    targets = set()
    for path in conf.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            stripped = line.strip().removeprefix("- ")
            if stripped.startswith("_target_:"):
                targets.add(stripped.split(":", 1)[1].split("#")[0].strip())
    assert len(targets) > 20
    for target in sorted(targets):
        signature(target)
