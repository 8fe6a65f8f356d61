"""The pytest plugin of the suites: options, the workload, and what a result file records."""

import platform
from importlib.metadata import version
from typing import Any

import pytest
import torch

from natbench.presets import PRESETS
from natbench.workload import Workload, build_workload

_MEASURED = ("natbench", "vqtok", "natgen", "policyrl", "advreward", "torch", "timm")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that `natbench` hands on."""
    group = parser.getgroup("natbench")
    group.addoption("--preset", choices=list(PRESETS), default="laptop")
    group.addoption("--device", default="cpu")
    group.addoption("--precision", choices=["fp32", "bf16"], default="fp32")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs whole generations at each decoding length of the preset."""
    if "num_steps" in metafunc.fixturenames:
        preset = PRESETS[metafunc.config.getoption("preset")]()
        metafunc.parametrize("num_steps", preset.num_steps, ids=lambda steps: f"T{steps}")


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Hardware, versions and settings beside the numbers: without them a number says nothing."""
    device = torch.device(config.getoption("device"))
    machine_info["natbench"] = {
        "preset": config.getoption("preset"),
        "precision": config.getoption("precision"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in _MEASURED},
    }


@pytest.fixture(scope="session")
def workload(pytestconfig: pytest.Config) -> Workload:
    """The models of the chosen preset."""
    return build_workload(
        PRESETS[pytestconfig.getoption("preset")](),
        torch.device(pytestconfig.getoption("device")),
        pytestconfig.getoption("precision"),
    )
