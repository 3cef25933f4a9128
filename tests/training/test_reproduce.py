"""Running a tracked run again gives its figures, or says what differs."""

import json
import math
import subprocess

import numpy as np
import pytest

from segtrail.training.reproduce import commit, compare, fingerprint
from tests.training.command import SMALL, output, run


def test_a_run_is_reproduced_exactly_and_differences_are_told(tmp_path):
    assert run(tmp_path, *SMALL, "trainer.max_epochs=1") == 0, output(tmp_path)
    assert run(tmp_path, "last", verb="reproduce") == 0, output(tmp_path)
    said = output(tmp_path)
    assert "Reproduced." in said
    assert said.count("equal") >= 8
    (again,) = tmp_path.glob("outputs/*/*-again")
    (first,) = (f for f in again.parent.iterdir() if f != again)
    result = json.loads((first / "result.json").read_text())
    assert {"val/mIoU", "val/loss", "test/mIoU"} <= set(result["metrics"])
    assert len(list(tmp_path.glob(".neptune/offline/*"))) == 2  # a tracked run of its own
    result["metrics"]["val/mIoU"] += 0.25
    result["data"]["val"] = "other"
    result["commit"] = "abc"
    (first / "result.json").write_text(json.dumps(result))
    assert run(tmp_path, str(first), "--folder", str(tmp_path / "third"), verb="reproduce") == 1
    said = output(tmp_path)
    assert "The code differs: then abc" in said
    assert "The data of the split 'val' differ" in said
    assert "-0.25  DIFFERS" in said


def test_a_run_that_did_not_finish(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    from segtrail.training.reproduce import ReproduceError, main

    with pytest.raises(ReproduceError, match="did not finish"):
        main([str(tmp_path)])


def test_comparison():
    lines, same = compare({"a": 1.0, "b": math.nan}, {"a": 1.0, "b": math.nan}, 0.0)
    assert same
    assert sum("equal" in line for line in lines) == 2
    assert compare({"a": 1.0}, {"a": 1.0001}, 1e-3)[1]
    assert not compare({"a": 1.0}, {"a": 1.1}, 1e-3)[1]
    assert not compare({"a": 1.0}, {}, 1e-3)[1]


class Data:
    def __init__(self, shade=0):
        self.ids, self.shade = ["a", "b"], shade

    def __len__(self):
        return 2

    def __getitem__(self, index):
        pixels = np.full((2, 2), index + self.shade, np.uint8)
        return type("Sample", (), {"image": pixels, "mask": pixels})


def test_fingerprint_sees_ids_and_pixels():
    other = Data()
    other.ids = ["a", "c"]
    assert fingerprint(Data()) == fingerprint(Data())
    assert len({fingerprint(Data()), fingerprint(Data(1)), fingerprint(other)}) == 3


def test_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commit() == ""
    (tmp_path / "a").write_text("1")
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "a"], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", *command], check=True)
    assert len(commit()) == 40
    (tmp_path / "a").write_text("2")
    assert commit().endswith("+changes")
