"""The recipes of papers compose, and build the networks that they name."""

from pathlib import Path

import pytest

import segtrail
from segtrail.models.base import SegmentationModel
from tests.models.compact import CONF, locate

PAPERS = sorted(
    f.stem
    for f in (CONF / "experiment").glob("*.yaml")
    if "Published" in f.read_text() or "paper" in f.read_text()
)


def test_finds_the_recipes() -> None:
    assert len(PAPERS) >= 7


class DataElsewhere:
    """Stands for the papers' data sets, which are not here."""

    @staticmethod
    def splits(**config: object) -> tuple[str, ...]:
        return ("train", "val")


@pytest.mark.parametrize("name", PAPERS)
def test_composes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segtrail.config.compose._dataset_class", lambda config: DataElsewhere)
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    assert f"experiment={name} dataset.root=" in text.splitlines()[1]
    assert "Not run here" in text
    config = segtrail.compose(
        [f"experiment={name}", f"dataset.root={tmp_path}", "dataset.class_names=[a,b]", "tracker=none"]
    )
    assert issubclass(locate(config.model._target_), SegmentationModel)
    assert config.loader.batch_size * config.trainer.devices in (8, 10, 16, 20)
