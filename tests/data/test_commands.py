"""``segtrail data``: reports, contact sheets and numbers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segtrail.data.commands import main
from segtrail.data.datasets.folder import FolderDataset
from segtrail.data.datasets.shapes import ShapesDataset
from segtrail.data.statistics import gather
from tests.data.makers import folder, ids, index_mask, picture


def test_check_names_every_problem_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path, 12)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nnever\n")
    mask = ids()
    mask[0, 0] = 77
    index_mask(tmp_path / "masks" / "s01.png", mask)
    index_mask(tmp_path / "masks" / "s02.png", ids((12, 15)))
    (tmp_path / "masks" / "s03.png").unlink()
    index_mask(tmp_path / "masks" / "s04.png", np.zeros((12, 16), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(picture(tmp_path / "images" / "s05.jpg")).save(tmp_path / "images" / "s05.jpg", exif=exif)
    shutil.copy(tmp_path / "images" / "s06.jpg", tmp_path / "images" / "s07.jpg")
    (tmp_path / "train.txt").write_text("\n".join(f"s{n:02d}" for n in (0, 1, 2, 4, 5, 6)))
    (tmp_path / "val.txt").write_text("\n".join(f"s{n:02d}" for n in (7, 8, 9)))
    sheet, report = tmp_path / "sheet.png", tmp_path / "report.txt"
    code = main(
        [
            "check",
            "dataset=folder",
            f"dataset.root={tmp_path}",
            "--sheet",
            str(sheet),
            "--report",
            str(report),
        ]
    )
    lines = report.read_text()
    assert code == 1
    for expected in (
        "error: train: .*s01.png: mask has id 77",
        "error: train: .*s02.png: mask is 15x12",
        "error: train: no pixel of class 'never'; label some",
        "error: val: .*s07.jpg equals .*s06.jpg of train; remove one",
        "warning: train: .*s04.png has nothing but 'a'; was it labeled",
        "warning: train: .*s05.jpg has EXIF orientation 3.*exif=apply",
    ):
        assert re.search(expected, lines), (expected, lines)
    assert "4 errors" in capsys.readouterr().out
    assert cv2.imread(str(sheet)).shape[1] == 4 * 328


def test_check_of_good_data_and_of_data_without_any_good_sample(tmp_path: Path) -> None:
    assert main(["check", "dataset=shapes", "dataset.num_samples=6", "--sheet", str(tmp_path / "s.png")]) == 0
    for number in range(2):
        picture(tmp_path / "images" / f"{number}.png")
        index_mask(tmp_path / "masks" / f"{number}.png", ids((3, 3)))
    options = [f"dataset.root={tmp_path}", "dataset.class_names=[a,b,c]", "dataset.val_fraction=0"]
    report = tmp_path / "report.txt"
    assert (
        main(
            ["check", "dataset=folder", *options, "--report", str(report), "--sheet", str(tmp_path / "x.png")]
        )
        == 1
    )
    assert report.read_text().count("error: ") == 3  # each sample, and that none is left
    assert not (tmp_path / "x.png").exists()


def test_statistics_by_hand(tmp_path: Path) -> None:
    for number, rows in enumerate((4, 1)):  # of 8 rows of class 1; 2 columns void
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 10, 3), 255 * number, np.uint8))
        mask = np.zeros((8, 10), np.uint8)
        mask[:rows, :], mask[:, 8:] = 1, 255
        index_mask(tmp_path / "masks" / f"{number}.png", mask)
    found = gather(FolderDataset(str(tmp_path), "train", val_fraction=0.0))
    assert found.pixels.tolist() == [88, 40]
    assert found.images.tolist() == [2, 2]
    assert found.void == pytest.approx(0.2)
    assert found.mean.tolist() == [0.5] * 3
    assert found.std.tolist() == [0.5] * 3
    weights = found.weights()
    assert weights["median_frequency"].tolist() == pytest.approx([64 / 88, 64 / 40])
    assert weights["enet"].tolist() == pytest.approx(
        [1 / np.log(1.02 + 88 / 128), 1 / np.log(1.02 + 40 / 128)]
    )


def test_stats_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "stats.json"
    assert (
        main(
            ["stats", "dataset=shapes", "dataset.num_samples=8", "--split", "train", "--output", str(output)]
        )
        == 0
    )
    written = json.loads(output.read_text())["train"]
    assert written["pixels"] == ShapesDataset("train", num_samples=8).class_counts().sum(axis=0).tolist()
    assert "plain_disk" in capsys.readouterr().out
