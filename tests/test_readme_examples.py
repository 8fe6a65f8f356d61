"""The python examples of every README run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import LIBRARIES, PROJECTS, ROOT, python_example

PAGES = [ROOT / "README.md", *(folder / "README.md" for folder in PROJECTS.values())]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_example(page)], ids=lambda page: page.parent.name
)
def test_readme_example_runs(page: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", python_example(page)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", LIBRARIES)
def test_each_library_shows_an_example(name: str) -> None:
    assert python_example(PROJECTS[name] / "README.md"), f"{name}/README.md has no example"
