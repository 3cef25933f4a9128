"""The commands as a person types them: subprocesses, exit codes, and what is in the operation log after."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "dataset=shapes",
    "dataset.num_samples=8",
    "dataset.size=48",
    "loader.batch_size=4",
    "loader.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
]


def command(script: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *overrides],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def operations(folder: Path) -> list[dict]:
    (log,) = folder.glob(".neptune/offline/*/data-1.log")
    return [json.loads(line)["obj"] for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    result = command(
        "train.py", "model=deeplab", "loss=lovasz", *SMALL, "hydra.run.dir=run", "tags=[first]", cwd=folder
    )
    assert result.returncode == 0, result.stderr
    assert "Tracked run:" in result.stdout
    return folder


def test_the_operation_log_holds_every_name_of_a_run(trained: Path) -> None:
    from segtrail.data.datasets.shapes import ShapesDataset

    ops = operations(trained)
    paths = {"/".join(op["path"]) for op in ops}
    dataset = ShapesDataset(split="val", num_samples=8, size=48)
    expected = {"config/yaml", "train/loss", "train/lr", "train/epoch", "train/images_per_second"}
    expected |= {
        f"{split}/{m}" for split in ("val", "test") for m in ("loss", "mIoU", "mDice", "pixel_accuracy")
    }
    expected |= {f"val/IoU/{name}" for name in dataset.class_names}
    expected |= {"parameters/model/encoder_name", "parameters/loss/_target_", "parameters/optimizer/lr"}
    expected |= {"environment/command_line", "environment/packages", "environment/hardware/cpu"}
    expected |= {
        "evaluation/val/per_image",
        "evaluation/test/per_image",
        "weights/figure",
        "sys/tags",
        "sys/name",
    }
    expected |= {
        "checkpoints/best/path",
        "checkpoints/best/score",
        "checkpoints/best/step",
        "checkpoints/last/path",
    }
    assert expected <= paths, sorted(expected - paths)
    samples = {path.split("/")[1] for path in paths if path.startswith("samples/")}
    assert len(samples) == 8
    for sample in samples:
        assert {
            f"samples/{sample}/{kind}" for kind in ("image", "target", "prediction", "confidence")
        } <= paths
    assert any(path.startswith("weights/histograms/") for path in paths)
    steps = [value["step"] for op in ops if op["path"] == ["train", "loss"] for value in op["values"]]
    assert steps == [0, 1, 2, 3]


def test_tags_name_and_parameters_are_values_a_person_can_filter_by(trained: Path) -> None:
    values = {"/".join(op["path"]): op.get("value", op.get("values")) for op in operations(trained)}
    assert "first" in values["sys/tags"]
    assert values["sys/name"] == "deeplab-lovasz"
    assert values["parameters/num_classes"] == 4
    assert values["parameters/optimizer/lr"] == pytest.approx(1e-3)


def test_predicted_label_maps_decode_to_what_the_checkpoint_predicts(trained: Path) -> None:
    import torch

    from segtrail.training.checkpoint import load_run

    loaded = load_run(trained / "run/checkpoints/last.ckpt")
    dataset = loaded.experiment.datamodule.dataset("val")
    last = {}
    for op in operations(trained):
        if op["path"][0] == "samples" and op["path"][-1] == "prediction":
            last[op["path"][1]] = op["values"][0]["value"]["data"]
    assert len(last) == 8
    from segtrail.tracking import names

    for index, sample_id in enumerate(dataset.ids):
        path = names.sample_prediction(sample_id).split("/")[1]
        picture = Image.open(io.BytesIO(base64.b64decode(last[path])))
        assert picture.mode == "P"
        image = torch.from_numpy(dataset[index].image).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = loaded.module.model(loaded.module.normalize(image)).logits
        np.testing.assert_array_equal(np.array(picture), logits.argmax(1)[0].numpy())
        palette = np.array(picture.getpalette()[: 3 * 4]).reshape(4, 3)
        np.testing.assert_array_equal(palette, loaded.experiment.palette)


def test_the_same_seed_gives_the_same_series(tmp_path: Path) -> None:
    series = []
    for name, workers in (("one", 0), ("two", 2)):
        (tmp_path / name).mkdir()
        result = command(
            "train.py",
            *SMALL,
            "trainer.max_epochs=1",
            f"loader.num_workers={workers}",
            "callbacks=none",
            cwd=tmp_path / name,
        )
        assert result.returncode == 0, result.stderr
        series.append(
            [
                (value["step"], value["value"])
                for op in operations(tmp_path / name)
                if op["path"] == ["train", "loss"]
                for value in op["values"]
            ]
        )
    assert len(series[0]) == 2
    assert series[0] == series[1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=deplab"], "there is no model 'deplab'; did you mean 'deeplab'?"),
        (["loss=dice", "loss.gama=2"], "there is no key 'gama' in 'loss'"),
        (["dataset.root=/nope"], "/nope does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(overrides: list[str], said: str, tmp_path: Path) -> None:
    result = command("train.py", *overrides, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stdout + result.stderr


def folder_dataset(root: Path) -> list[str]:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(4):
            image = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / f"images/{split}/{index}.jpg")
            Image.fromarray(generator.integers(0, 5, (32, 32), dtype=np.uint8)).save(
                root / f"masks/{split}/{index}.png"
            )
    return [
        "dataset=folder",
        f"dataset.root={root}",
        "dataset.class_names=[a,b,c,d,e]",
        *SMALL[3:],
        "callbacks=none",
    ]


def bad_id(root: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[3, 3] = 77
    Image.fromarray(mask).save(root / "masks/train/2.png")


def truncated_jpeg(root: Path) -> None:
    path = root / "images/train/2.jpg"
    path.write_bytes(path.read_bytes()[:300])


def no_mask(root: Path) -> None:
    (root / "masks/train/2.png").unlink()


@pytest.mark.parametrize(
    ("damage", "said"), [(bad_id, ["2.png", "77"]), (truncated_jpeg, ["2.jpg"]), (no_mask, ["2.jpg"])]
)
def test_a_bad_file_is_named_and_skipped_only_on_request(damage, said: list[str], tmp_path: Path) -> None:
    overrides = folder_dataset(tmp_path / "data")
    damage(tmp_path / "data")
    result = command("train.py", *overrides, "tracker=none", cwd=tmp_path)
    assert result.returncode not in (0, 1), result.stderr
    assert all(word in result.stderr for word in said)
    assert "Traceback" not in result.stdout + result.stderr
    skipping = command(
        "train.py", *overrides, "tracker=none", "dataset.on_error=skip", "loader.batch_size=3", cwd=tmp_path
    )
    assert skipping.returncode == 0, skipping.stderr
    assert said[0] in skipping.stdout + skipping.stderr


def test_help_and_config_need_neither_torch_nor_lightning(tmp_path: Path) -> None:
    for option in (["--help"], ["--cfg", "job"]):
        code = (
            "import sys; sys.argv = ['train.py', *sys.argv[1:]]\n"
            "from segtrail.cli import train\n"
            "try:\n    train()\nexcept SystemExit:\n    pass\n"
            "print(sorted({'torch', 'pytorch_lightning', 'albumentations', 'neptune'} & set(sys.modules)))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, *option], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip().splitlines()[-1] == "[]"
        assert "model" in result.stdout
