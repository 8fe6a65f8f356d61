"""Fixtures for every test of the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--reference`."""
    parser.addoption(
        "--reference",
        type=Path,
        default=ROOT / "tests" / "parity" / "reference",
        metavar="DIR",
        help="folder of the numbers recorded from the published system",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def workspace_root() -> Path:
    """The folder that holds `packages/`, `apps/` and `tests/`."""
    return ROOT


@pytest.fixture(scope="session")
def reference_dir(pytestconfig: pytest.Config) -> Path:
    """Folder with the recorded `*.safetensors` of the published system."""
    folder: Path = pytestconfig.getoption("--reference")
    if not (folder / "manifest.json").is_file():
        # They come with the repository: without them nothing would be checked, silently.
        pytest.fail(f"no recorded reference numbers in {folder} (choose with --reference DIR)")
    return folder
