"""The Neptune logger, judged by the operation log that it leaves."""

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, TensorDataset

from segtrail.tracking import NeptuneLogger, names
from segtrail.tracking.histogram import Histogram, decode_histograms
from segtrail.tracking.label_map import decode_label_map
from tests.tracking.operations import records, series, uploads, values

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("NEPTUNE_API_TOKEN", "NEPTUNE_MODE", "NEPTUNE_DATA_DIRECTORY", "NEPTUNE_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def logger():
    logger = NeptuneLogger()
    yield logger
    logger.close()


def test_offline_without_a_token_and_async_with_one(monkeypatch):
    assert NeptuneLogger().mode == "offline"
    monkeypatch.setenv("NEPTUNE_API_TOKEN", "x")
    assert NeptuneLogger().mode == "async"
    assert NeptuneLogger(mode="offline").mode == "offline"


def test_every_call_is_in_the_log_when_it_returns(logger):
    palette = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    ids = np.array([[0, 1], [255, 1]], np.uint8)
    photograph = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    logger.log_metrics({"train/loss": 0.5, "epoch": 3}, step=7)
    logger.log_image(names.sample_image("a"), photograph)
    logger.log_label_map(names.sample_prediction("a"), ids, palette, 255, step=7)
    logger.log_histograms({"conv.weight": Histogram(np.arange(64), -1.0, 1.0)}, step=7)
    logger.log_config("seed: 1\n", {"model": {"encoder.name": "resnet18", "depth": 5}, "seed": 1})
    logger.log_tags(["sweep/1"])
    log = Path(logger.location)
    assert series(log, "train/loss") == [(7, 0.5)]
    assert series(log, "train/epoch") == [(7, 3.0)]
    ((step, png),) = series(log, "samples/a/prediction")
    assert step == 7
    assert np.array_equal(decode_label_map(png), ids)
    files = uploads(log)
    assert files["config/yaml"] == b"seed: 1\n"
    assert list(decode_histograms(files["weights/histograms/7"])) == ["conv.weight"]
    assert "samples/a/image" in files
    found = values(log)
    assert found["parameters/model/encoder/name"] == "resnet18"
    assert (found["parameters/model/depth"], found["parameters/seed"]) == (5, 1)
    assert any(r["obj"].get("values") == ["sweep/1"] for r in records(log))
    assert logger.failures == 0


def test_points_that_are_not_finite_are_marked(logger):
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf, 2.0]):
        logger.log_metrics({"train/loss": torch.tensor(value)}, step=step)
    log = Path(logger.location)
    assert series(log, "train/loss") == [(0, 1.0), (4, 2.0)]
    assert series(log, names.nonfinite("train/loss")) == [(1, "nan"), (2, "inf"), (3, "-inf")]


def test_values_that_the_client_would_drop_are_kept(logger):
    logger.log_values({"a": None, "b": 2**40, "c": math.nan, "d": True, "e": -3, "f": ""})
    found = values(Path(logger.location))
    assert {k: found[k] for k in "abcdef"} == {
        "a": "null", "b": float(2**40), "c": "nan", "d": True, "e": -3, "f": "",
    }  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_loses_nothing(tmp_path, end):
    code = (
        "import os, signal\n"
        "from segtrail.tracking import NeptuneLogger\n"
        "logger = NeptuneLogger()\n"
        "for step in range(37): logger.log_metrics({'train/loss': step / 7, 'train/lr': 0.1}, step=step)\n"
        f"os.kill(os.getpid(), {int(end)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == -end, done.stderr
    (log,) = tmp_path.glob(".neptune/offline/run__*")
    assert series(log, "train/loss") == [(step, step / 7) for step in range(37)]
    assert len(series(log, "train/lr")) == 37


@pytest.mark.filterwarnings("ignore:.*use of fork.*")
def test_forked_loader_workers_write_nothing_twice():
    logger = NeptuneLogger()
    loader = DataLoader(TensorDataset(torch.arange(8)), batch_size=2, num_workers=2)
    for epoch in range(3):
        logger.experiment["notes"].append("a line that the client keeps in its buffer")
        for batch, _ in enumerate(loader):
            logger.log_metrics({"train/loss": 1.0}, step=epoch * 4 + batch)
    log = Path(logger.location)
    logger.close()
    versions = [record["version"] for record in records(log)]
    assert versions == list(range(1, len(versions) + 1))
    assert len(series(log, "train/loss")) == 12


def test_resuming_continues_the_run_without_gap_or_double_points(tmp_path):
    first = NeptuneLogger(name="mine")
    for step in range(5):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.log_image("samples/a/confidence", np.zeros((2, 2), np.uint8), step=4)
    run_id, old = first.run_id, Path(first.location)
    first.close()
    with (old / "data-1.log").open("a") as file:  # what a killed process may leave at the end
        file.write('{"obj": {"type": "LogFloats", "path": ["train", "loss"], "values": [{"value": 5')
    again = NeptuneLogger(run_id=run_id)
    for step in range(3, 8):  # the checkpoint was two steps old
        again.log_metrics({"train/loss": float(step)}, step=step)
        again.log_image("samples/a/confidence", np.zeros((2, 2), np.uint8), step=step)
    new = Path(again.location)
    again.close()
    assert new != old
    assert new.name.startswith(f"run__{run_id}__")
    assert old.name.startswith(f"run__{run_id}__")
    assert [step for step, _ in series(new, "train/loss")] == [5, 6, 7]
    assert [step for step, _ in series(new, "samples/a/confidence")] == [5, 6, 7]
    assert "sys/name" not in values(new)  # the name that the run has stays


def test_a_custom_id_joins_processes_into_one_run():
    first, second = (NeptuneLogger(custom_run_id="ablation-3") for _ in range(2))
    assert first.run_id == second.run_id
    assert values(Path(first.location))["sys/custom_run_id"] == "ablation-3"
    first.close()
    second.close()


def test_a_full_disk_is_one_warning_and_keeps_what_was_logged(tmp_path):
    code = (
        "import resource\n"
        "from pathlib import Path\n"
        "from segtrail.tracking import NeptuneLogger\n"
        "logger = NeptuneLogger()\n"
        "for step in range(9): logger.log_metrics({'a': 1.0}, step=step)\n"
        "log = next(Path(logger.location).glob('data-*.log'))\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))\n"
        "for step in range(9, 12): logger.log_metrics({'a': 1.0}, step=step)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "for step in range(12, 20): logger.log_metrics({'a': 1.0}, step=step)\n"
        "logger.close()\n"
        "print('trained on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "trained on\n", done.stderr
    assert done.stderr.count("training goes on") == 1, done.stderr
    assert "File too large" in done.stderr
    (log,) = tmp_path.glob(".neptune/offline/run__*")
    steps = [step for step, _ in series(log, "a")]
    # here the space came back, and what waited in the buffer was written after all
    assert steps == list(range(20))


def test_an_unreachable_server_at_start_means_offline(monkeypatch, caplog):
    import neptune

    def refuse(**_):
        raise neptune.exceptions.NeptuneConnectionLostException(ConnectionRefusedError("no route"))

    monkeypatch.setattr(neptune, "init_run", refuse)
    logger = NeptuneLogger(mode="async", project="team/project", api_token="x")
    logger.log_metrics({"a": 1.0}, step=0)
    assert "tracked offline" in caplog.text
    assert series(Path(logger.location), "a") == [(0, 1.0)]
    logger.close()


def test_only_rank_zero_tracks(monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = NeptuneLogger()
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_image("b", np.zeros((2, 2), np.uint8))
    assert logger.run_id is None
    logger.close()
    assert not Path(".neptune").exists()


def test_a_failing_client_is_told_once_and_counted(logger, caplog, monkeypatch):
    monkeypatch.setattr(type(logger.experiment), "wait", lambda *a, **k: 1 / 0)
    for step in range(5):
        logger.log_metrics({"a": 1.0}, step=step)
    assert caplog.text.count("training goes on") == 1
    monkeypatch.undo()
    logger.close()
    assert "5 calls of NeptuneLogger failed" in caplog.text


def test_the_slow_grammar_is_not_imported():
    code = (
        "import sys\n"
        "from segtrail.tracking.neptune import _import_client\n"
        "assert 'neptune' not in sys.modules\n"
        "_import_client()\n"
        "print('rfc3987_syntax' in sys.modules, 'lark' in sys.modules)\n"
        "import rfc3987_syntax\n"
        "print(rfc3987_syntax.is_valid_syntax('iri', 'http://a.b'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "True"], done.stderr


def test_close_lets_another_run_start_in_the_same_process():
    places = []
    for _ in range(2):
        logger = NeptuneLogger()
        logger.log_metrics({"a": 1.0}, step=0)
        places.append(logger.location)
        logger.close()
    assert len(set(places)) == 2
    assert len(list(Path(".neptune/offline").iterdir())) == 2
