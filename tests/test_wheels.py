"""Wheels are complete, and natgen and policyrl work from their wheels alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from workspace import PROJECTS, ROOT, python_example

# Runs inside the isolated interpreter: `-I -S` hides the editable installs (their .pth files are
# never read); the wheels' folder and the shared site-packages (torch and so on) are put on the
# path by hand.
ISOLATED = """
import importlib.util, sys
target, shared, source = sys.argv[1:]
sys.path[:0] = [target]
sys.path.append(shared)
visible = {
    name
    for name in ("vqtok", "natgen", "policyrl", "advreward", "natbench", "adanat")
    if importlib.util.find_spec(name)
}
assert visible == {"natgen", "policyrl"}, visible
import natgen, policyrl
assert natgen.__file__.startswith(target) and policyrl.__file__.startswith(target)
exec(compile(open(source).read(), source, "exec"), {"__name__": "__main__"})
"""


def build(project: Path, kind: str, output: Path) -> Path:
    """Builds a wheel or an sdist with the backend at hand, without a network."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}"]
    subprocess.run(
        [*command, "--outdir", str(output), str(project)],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    (archive,) = output.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: build(project, "wheel", tmp_path_factory.mktemp(f"wheel-{name}"))
        for name, project in PROJECTS.items()
    }


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_holds_every_source_file(name: str, wheels: dict[str, Path]) -> None:
    source = PROJECTS[name] / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheels[name]) as archive:
        packed = {entry for entry in archive.namelist() if entry.startswith(f"{name}/")}
    assert packed == expected


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_states_licence_and_readme(name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        (entry,) = [entry for entry in archive.namelist() if entry.endswith("/METADATA")]
        metadata = archive.read(entry).decode()
        (entry,) = [entry for entry in archive.namelist() if entry.endswith("/LICENSE")]
        licence = archive.read(entry).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert licence == (ROOT / "LICENSE").read_text()
    assert "Description-Content-Type: text/markdown" in metadata


def test_sdist_carries_tests_and_changelog(tmp_path: Path) -> None:
    with tarfile.open(build(PROJECTS["natgen"], "sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"CHANGELOG.md", "README.md", "pyproject.toml"} <= names
    assert any(name.startswith("tests/") for name in names)


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheels of natgen and policyrl."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "--target", str(target), str(wheels["natgen"]), str(wheels["policyrl"])],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    return target


@pytest.mark.parametrize("name", ["natgen", "policyrl"])
def test_readme_example_runs_from_wheels_alone(name: str, installed: Path, tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(python_example(PROJECTS[name] / "README.md"))
    shared = Path(pytest.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ISOLATED, str(installed), str(shared), str(example)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr
