"""Imports point one way: read from the source, so that a wrong arrow fails before it grows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "segtrail"

# package -> what of segtrail it may import beside itself
ALLOWED = {
    "models": {"data.types", "data.derived", "losses"},
    "losses": {"data.types", "data.derived"},
    "metrics": {"data.types", "data.derived"},
    "data": {"data", "__init__"},
    "visual": set(),
    "tracking": {"visual"},
    "callbacks": {"tracking", "visual", "metrics", "models.base", "data", "__init__"},
    "server": {
        "tracking.names",
        "tracking.label_map",
        "tracking.histogram",
        "tracking.per_image",
        "ui",
        "__init__",
    },
    "compare": {"server", "tracking.names", "tracking.label_map", "tracking.histogram", "tracking.per_image"},
    "ui": {
        "server",
        "compare",
        "tracking.names",
        "tracking.label_map",
        "tracking.histogram",
        "tracking.per_image",
        "__init__",
    },
}
FORBIDDEN = {
    "models": {"hydra", "omegaconf", "pytorch_lightning", "neptune"},
    "losses": {"hydra", "omegaconf", "pytorch_lightning", "neptune"},
    "metrics": {"hydra", "omegaconf", "pytorch_lightning", "neptune"},
    "visual": {"hydra", "omegaconf", "pytorch_lightning", "neptune", "torch"},
    "data": {"hydra", "omegaconf", "neptune"},
    "tracking": {"hydra", "omegaconf"},
    "callbacks": {"hydra", "neptune"},
    "server": {"torch", "pytorch_lightning", "hydra", "neptune", "torchvision"},
    "compare": {"torch", "pytorch_lightning", "hydra", "neptune", "torchvision"},
    "ui": {"torch", "pytorch_lightning", "hydra", "neptune", "torchvision"},
}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(package: str) -> list[Path]:
    files = sorted((SOURCE / package).rglob("*.py"))
    assert files, f"no source in {package}"
    return files


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_the_design_allows(package: str) -> None:
    wrong = []
    for path in files_of(package):
        for name in imports_of(path):
            if not name.startswith("segtrail"):
                continue
            inner = name.removeprefix("segtrail").lstrip(".") or "__init__"
            if inner == "__version__":
                continue
            if inner == package or inner.startswith(f"{package}."):
                continue
            if any(inner == allowed or inner.startswith(f"{allowed}.") for allowed in ALLOWED[package]):
                continue
            wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_packages_do_not_know_what_they_need_not(package: str) -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in files_of(package)
        for name in imports_of(path)
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_data_module_and_trackers_know_lightning_in_the_leaves() -> None:
    wrong = [
        str(path.relative_to(SOURCE))
        for path in files_of("data")
        if any(name.split(".")[0] == "pytorch_lightning" for name in imports_of(path))
    ]
    assert set(wrong) <= {"data/datamodule.py", "data/instances.py"}


def test_neptune_is_imported_in_one_file_and_late() -> None:
    users = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "neptune" for name in names):
                users.append(path.relative_to(SOURCE).as_posix())
                assert node not in tree.body, f"{path}: neptune is imported at the top of the module"
    assert set(users) <= {"tracking/neptune.py"}


def test_only_build_instantiates_from_config() -> None:
    users = [
        path.relative_to(SOURCE).as_posix()
        for path in sorted(SOURCE.rglob("*.py"))
        if "hydra.utils.instantiate" in imports_of(path)
    ]
    assert users == ["config/build.py"]


@pytest.mark.parametrize("module", ["segtrail", "segtrail.cli", "segtrail.ui.app", "segtrail.server.app"])
def test_entry_points_start_without_torch_and_neptune(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'neptune') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
